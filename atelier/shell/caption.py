"""`atelier caption`: describe the pictures of a folder with a language model, in text files beside them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AtelierError, MissingPackage
from .output import add_json, show
from .progress import ShellProgress

if TYPE_CHECKING:
    from ..prompts.budget import TokenCounter

ANSWERS = ".atelier-answers"
"""Folder of the model's answers, in the folder of pictures: with --existing replace nothing is asked twice either."""


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    from ..captions.request import AT_ONCE, CaptionRequest, CaptionStyle, Existing
    from ..prompts.endpoints import ENDPOINTS, LanguageModel

    parser = verbs.add_parser("caption", help="describe pictures with a language model, in text files beside them")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="pictures to describe")
    parser.add_argument("--endpoint", required=True,
                        help=f"{', '.join(ENDPOINTS)}, or the address of a service, such as http://127.0.0.1:11434/v1")
    parser.add_argument("--model", required=True, help="a model that sees pictures, as the service spells it")
    parser.add_argument("--credential", help="name of the key: an environment variable, or an entry of --credentials "
                                             "(default: the endpoint's usual one, none for an address)")
    parser.add_argument("--credentials", type=Path, help="a credentials.toml that says where other keys may be sent")
    parser.add_argument("--style", choices=[style.value for style in CaptionStyle],
                        default=CaptionStyle.SENTENCE.value)
    parser.add_argument("--instruction", default="", help="further wishes; with --style own the only rule")
    parser.add_argument("--trigger", default="", help="a word to put in front, and to keep out of the description")
    parser.add_argument("--forbidden", default="", help="words that no caption holds, with commas")
    parser.add_argument("--tokens", type=int, default=CaptionRequest.tokens,
                        help=f"most tokens of a caption, 0 for no limit (default: {CaptionRequest.tokens})")
    parser.add_argument("--existing", choices=[existing.value for existing in Existing], default=Existing.KEEP.value,
                        help="captions that are there: keep, or write anew (default: keep)")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"questions at a time (default: {AT_ONCE})")
    parser.add_argument("--timeout", type=float, default=LanguageModel.timeout,
                        help=f"seconds for an answer (default: {LanguageModel.timeout:g})")
    parser.add_argument("--no-recursive", action="store_true", help="leave out folders below")
    parser.add_argument("--seed", type=int, default=0)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Caption the folder and print what was done."""
    from ..captions.request import CaptionRequest, CaptionStyle, Existing, word_list
    from ..captions.run import CaptionWriter
    from ..dataset.scan import find_pictures
    from ..prompts.answer_cache import AnswerCache
    from ..prompts.client import ChatClient
    from ..prompts.credentials import CredentialStore
    from ..prompts.endpoints import ENDPOINTS, NO_CREDENTIAL, LanguageModel

    folder: Path = arguments.folder
    if not folder.is_dir():
        raise AtelierError(f"{folder} is not a folder.", "Give a folder of pictures.")
    pictures = [picture.path for picture in find_pictures(folder, recursive=not arguments.no_recursive)]
    if not pictures:
        raise AtelierError(f"{folder} holds no pictures.", "Give a folder of pictures.")
    request = CaptionRequest(style=CaptionStyle(arguments.style), instruction=arguments.instruction,
                             trigger=arguments.trigger, forbidden=word_list(arguments.forbidden),
                             tokens=arguments.tokens, seed=arguments.seed)
    preset = ENDPOINTS.get(arguments.endpoint)
    llm = LanguageModel(base_url=preset.base_url if preset else arguments.endpoint, model=arguments.model,
                        credential=arguments.credential or (preset.credential if preset else NO_CREDENTIAL),
                        timeout=arguments.timeout)
    progress = ShellProgress()
    writer = CaptionWriter(client=ChatClient(llm=llm, credentials=CredentialStore(arguments.credentials)),
                           request=request, cache=AnswerCache(folder / ANSWERS), counter=_counter(), root=folder,
                           existing=Existing(arguments.existing), at_once=arguments.at_once, progress=progress)
    result = writer.run(pictures)
    progress.close()
    result.require_all()
    kept, asked, cached = (result.count(source) for source in ("file", "model", "cache"))
    text = f"{len(result.items)} pictures have captions: {asked} by {llm.model}"
    text += (f", {cached} from earlier answers" if cached else "") + (f", {kept} were there" if kept else "") + "."
    show(arguments, text, {"pictures": [{"file": item.picture, "caption": item.caption, "source": item.source}
                                        for item in result.items],
                           "tokens_in": result.usage.tokens_in, "tokens_out": result.usage.tokens_out})


def _counter() -> TokenCounter | None:
    """Counts CLIP's tokens; None where its vocabulary is not installed, so that they are estimated."""
    from ..models.tokenizer import load_tokenizer

    try:
        tokenizer = load_tokenizer()
    except (MissingPackage, ImportError):
        return None
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
