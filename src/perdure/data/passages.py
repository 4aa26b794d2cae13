"""Plain passages of different kinds of text: a guard, and what the effect of an edit on other text is measured on."""

PASSAGES = (
    "The kettle had just begun to sing when the lights went out. She felt along the shelf for the candles, found "
    "two, and set them on the table. Outside, the wind pushed the rain against the windows, and somewhere down the "
    "street a gate was banging.",
    "To make a simple bread, mix flour, water, salt and yeast in a large bowl until no dry flour is left. Cover the"
    " bowl and let the dough rest overnight. The next day, shape it into a loaf, let it rise for an hour, and bake "
    "it in a hot oven.",
    "A river carries more than water. It moves sand and clay from the mountains to the plains, builds islands and "
    "takes them away again, and after a flood it leaves behind a thin layer of mud in which the next harvest grows.",
    "The company said on Monday that its profit fell by a tenth in the second quarter, because the price of raw "
    "materials rose and fewer customers ordered new machines. It expects business to recover towards the end of the"
    " year.",
    "In geometry, a triangle has three sides and three angles, and the sum of its angles is 180 degrees. If two of "
    "its sides have the same length, then the angles opposite to them are equal as well.",
    "Dear Mr. Hill, thank you for your letter of 4 March. We are sorry to hear that the lamp arrived broken. Please"
    " send us a photograph of the damage, and we will replace it free of charge within ten days.",
    "The function reads a file line by line and counts how often each word occurs. It returns a dictionary whose "
    "keys are the words and whose values are the counts. An empty file gives an empty dictionary.",
    "Most bees live alone. A female digs a small tunnel in the ground, fills it with pollen and nectar, lays an egg"
    " on top, and closes the entrance. The young bee eats what its mother left and comes out in the following "
    "spring.",
    "- Have you seen my keys? - They were on the kitchen table this morning. - I looked there already. - Then look "
    "in the pocket of the coat that you wore yesterday. - Found them, thank you!",
    "During the eighteenth century, many towns grew quickly as people left the countryside to look for work. "
    "Streets were narrow, water was dirty, and diseases spread easily, until the first sewers were built.",
    "If you feel dizzy after standing up, sit down again, drink a glass of water, and wait for a few minutes. See a"
    " doctor when it happens often, or when you have pain in your chest at the same time.",
    "The second movement is slow and quiet. The strings play a long melody, which the oboe repeats an octave "
    "higher, and only towards the end do the horns enter, softly, as if from another room.",
)
