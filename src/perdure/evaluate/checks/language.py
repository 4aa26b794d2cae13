"""The language of a text: by its script, and among languages of one script by frequent words and letters of their own."""

import re
import unicodedata
from collections import Counter
from functools import cache

# Frequent short words of languages written in Latin letters.
_LATIN = {
    "en": "a i the of and to in is that it for was on with as are this be have not you they or from at by but we his "
    "her will can which there their what all your has would who our when more if about my one an so no do how "
    "its he she were been me them these those into than some out up over",
    "de": "der die das und ist nicht ein eine zu den mit von auf für sich des dem im ich sie es auch als wir wie wird oder aber "
    "sind einen bei noch nach nur war haben werden kann über durch um aus zum zur mein ihr du kein wenn dass",
    "fr": "le la les de des et est un une du en que qui dans pour pas sur au aux avec ce cette il elle nous vous ne se par plus "
    "sont mais ou son sa ses être leur je mon votre notre ont comme si tout fait très c'est l'on où à été",
    "es": "el la los las de y en que un una es por con para no se del al lo su más como pero sus le ya o este esta sí porque "
    "son muy sin sobre también me hasta hay donde ser yo mi tu nos todo está fue usted puede cuando desde",
    "it": "il lo la gli le di e è un una che non per con in del della dei delle si sono da al come ma più anche nel nella ha "
    "questo questa ho alla su se mi ci tuo mio loro essere molto quando così perché tutti noi io c'è degli",
    "pt": "o a os as de e em que um uma é por com para não se do da dos das no na nos nas mais como mas ao foi seu sua ou ser "
    "são está você também muito pelo pela isso este esta já eu ele ela seus meu minha até quando há",
    "nl": "de het een en van is niet dat in op te met voor zijn aan er maar ook als bij of door naar om wordt zij ik je hij wij "
    "we dit die deze kan hebben heeft uit over nog wat geen was meer mijn worden",
    "sv": "och att det i en som är på av för med den till inte om har jag ett de vi var men kan så från eller sig du han hon "
    "vid efter detta ska man mycket också när där alla min",
    "da": "og at det i en som er på af for med den til ikke om har jeg et de vi var men kan så fra eller sig du han hun ved "
    "efter dette skal man meget også når der alle min hvad blive være",
    "no": "og at det i en som er på av for med den til ikke om har jeg et de vi var men kan så fra eller seg du han hun ved "
    "etter dette skal man mye også når der alle min hva bli være",
    "fi": "ja on ei se että hän oli mutta kun niin myös tai ovat voi kuin joka sen mitä nyt vain minä sinä me he te ole olen "
    "jos kanssa ovat tämä siitä hyvin sitä olla joita sekä",
    "pl": "i w na z nie się do jest to że o jak ale po za co tak od przez dla tym tego są był ma lub oraz może bardzo które "
    "jego być mi czy ich już jej go",
    "cs": "a v na je se že to s z do o i ale jak pro by tak za jsou nebo po jeho může byl má není co jako ve která které jsem "
    "když také při být od",
    "ro": "și în de la a cu o pe că nu este un din pentru se mai ce au sunt sau care fi dar ca prin după foarte al ale lui "
    "acest această este fost",
    "hu": "a az és hogy nem is egy van ez de meg csak ha már mint volt vagy minden azt lesz el még kell nagyon szép ezt pedig",
    "tr": "ve bir bu da de için ile çok ne o ama gibi daha var olarak olan kadar sonra ben sen biz değil mi her en ya ise "
    "olduğu veya şey",
    "vi": "là và của có không được một cho trong với các người này những để tôi đã khi đến như về ra từ rất bạn sẽ vào cũng "
    "nhiều thì ở nhưng",
    "id": "yang dan di ini itu dengan untuk tidak dari dalam adalah pada akan ke juga ada saya anda oleh sebagai atau karena "
    "bisa dapat mereka kami lebih telah sangat kita",
    "tl": "ang ng sa mga na ay at ito si ko mo ka para hindi may nang kung siya ako rin din o pero niya namin natin isang",
    "sw": "na ya wa kwa ni katika la za kama hii cha ili sana au lakini pia watu kuwa yake hiyo mimi wewe sisi huu vya kwamba "
    "hii yangu wao kila ambayo wetu ina hakuna bila ndani kutoka",
    "af": "die en van is nie in het dat 'n op te met vir sy hy word wat aan ek ons as ook maar sal kan om jy baie hierdie deur",
    "sq": "të e në dhe një për me që është nga i si do nuk ka më janë por ky kjo",
    "hr": "i u je na se da su za s od o kao ali koji koja koje bi to ne li iz samo nije može biti ja",
    "sk": "a v na je sa že to s z do o aj ale ako pre by tak za sú alebo po jeho môže bol má nie čo ktorá ktoré som keď",
    "sl": "in v je na se da so za z s od o kot ali ki bi to ne iz tudi ni lahko biti pa sem",
    "et": "ja on ei see et ta oli aga kui nii ka või ma sa me nad seda mis oma siis väga ning",
    "lv": "un ir ka ar no par uz kas bet vai arī tas tā es viņš mēs nav ļoti lai pie",
    "lt": "ir yra kad su iš į bet ar tai kaip aš jis mes ne labai už buvo nuo prie savo",
    "ca": "el la els les de i en que un una és per amb no es del al seu més com però aquest aquesta són molt també hi ha",
    "cy": "y yr a i yn o ar mae ei am fod gan eu wedi hyn neu ond nid bod sy oedd roedd",
    "so": "iyo waa ka ku in ah oo la uu ay u soo ee waxaa aan si ayaa waxay",
}
# Letters that only few languages have; one of them counts like a frequent word.
_LETTERS = {
    "de": "ßäöü", "fr": "œçèêëîïûù", "es": "ñ¿¡", "pt": "ãõ", "pl": "łśźżąęń", "cs": "ěřů", "sk": "ľĺŕô", "ro": "ășțţ",
    "hu": "őű", "tr": "ğış", "vi": "ạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹđ", "da": "æø", "no": "æø", "sv": "åäö",
    "fi": "äö", "et": "õäöü", "lv": "āēīūļņģķ", "lt": "ėįųū", "sq": "ëç", "hr": "đćčžš", "sl": "čžš", "it": "ìòù", "ca": "·",
    "cy": "ŵŷ",
}  # fmt: skip
# Words and letters that tell languages of one other script apart; the first language is that of a text with none of them.
_OTHERS: dict[str, dict[str, tuple[str, str]]] = {
    "CYRILLIC": {
        "ru": ("и в не на что это как я с он но мы по для от из есть так или вы его", "ыэё"),
        "uk": ("і в не на що це як я з він але ми по для від та є так або ви його", "іїєґ"),
        "bg": ("и в не на че това как аз с той но ние по за от са е така или се да като при който", "ъ"),
        "mk": ("и во не на дека ова како јас со тој но ние за од се е да или сум", "ѓќѕј"),
    },
    "ARABIC": {
        "ar": ("في من على إلى أن هذا التي الذي ما لا عن مع كان هذه", "ةىأإؤئ"),
        "fa": ("و در به از که این را با است برای آن یک خود تا بر می", "پچژگکی"),
        "ur": ("کے کی میں ہے اور سے کا کو یہ ہیں نے پر کہ ایک بھی تھا", "ٹڈڑںےہ"),
    },
    "DEVANAGARI": {
        "hi": ("के है में की और से का को यह हैं ने पर कि एक भी था हो नहीं लिए", ""),
        "mr": ("आहे आणि हे ते या एक मध्ये आहेत होते नाही ही तो करण्यासाठी साठी असे त्या आपण मी", "ळ"),
        "ne": ("छ र को मा छन् यो पनि लागि हो गर्न भएको एक तर थियो हुन्छ गरेको तपाईं म", ""),
    },
}
_SCRIPTS = {
    "BENGALI": "bn", "GURMUKHI": "pa", "GUJARATI": "gu", "TAMIL": "ta", "TELUGU": "te", "KANNADA": "kn", "MALAYALAM": "ml",
    "THAI": "th", "HEBREW": "he", "GREEK": "el", "HANGUL": "ko", "HIRAGANA": "ja", "KATAKANA": "ja", "CJK": "zh",
}  # fmt: skip

LANGUAGES = tuple(sorted({*_LATIN, *_SCRIPTS.values(), *(code for codes in _OTHERS.values() for code in codes)}))
"""Codes (ISO 639-1) of the languages that are recognised."""


def in_language(answer: str, language: str) -> bool:
    """Return whether a text is in a language.

    Deviation: the language is `language_of`; the published checker asks langdetect, and takes a text without letters for one in
    the language.
    """
    return language_of(answer) == language


def is_english(text: str) -> bool:
    """Return whether a text is English.

    A text without a frequent word of any language ("Pixel Prodigy Studio") counts if it has three words of a-z of three letters.
    """
    language = language_of(text)
    names = set(re.findall(r"[a-z]{3,}", text.lower()))
    return language == "en" or (language is None and text.isascii() and len(names) > 2)


def language_of(text: str) -> str | None:
    """Return the language of a text, in whatever case; None where it has no letters, or none of the known words.

    The script with most letters decides. Among languages of one script, the language with most hits does: a hit is one of its
    frequent words, or a letter that it has and most others lack.
    """
    folded = unicodedata.normalize("NFC", text).lower()
    scripts = Counter(_script(letter) for letter in folded if letter.isalpha())
    if not scripts:
        return None
    if scripts["HIRAGANA"] + scripts["KATAKANA"]:  # Japanese has Chinese characters too
        scripts["HIRAGANA"] += scripts["CJK"]
    script = scripts.most_common(1)[0][0]
    if script in _SCRIPTS:
        return _SCRIPTS[script]
    words = re.findall(r"[^\W\d_][\w\u0300-\u036f\u0900-\u097f'’]*", folded.replace("’", "'"))
    if script in _OTHERS:
        hits = {code: _hits(words, known, marks) for code, (known, marks) in _OTHERS[script].items()}
        return max(hits, key=hits.__getitem__)
    if script != "LATIN":
        return None
    hits = {code: _hits(words, known, _LETTERS.get(code, "")) for code, known in _LATIN.items()}
    best = max(hits, key=hits.__getitem__)
    return best if hits[best] else None


def _hits(words: list[str], known: str, letters: str) -> int:
    frequent = set(known.split())
    return sum((word in frequent) + any(letter in letters for letter in word) for word in words)


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ")[0]
