"""`atelier grid`: compose pictures and fillers into a block grid."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import AtelierError
from .output import add_json, show
from .pictures import open_pictures, picture_files
from .progress import ShellProgress


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    from ..grid.layout import PRESETS, Gaps, Placement

    gaps = Gaps()
    parser = verbs.add_parser("grid", help="compose a grid of blocks, each with one picture and fillers")
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="unique pictures: files or folders")
    parser.add_argument("--fillers", type=Path, help="folder of fillers; needed for blocks of more than one cell")
    parser.add_argument("--out", type=Path, default=Path("grid.png"), help="a manifest is written beside it")
    parser.add_argument("--block", type=int, default=2, help="cells along a side of a block (default: 2)")
    parser.add_argument("--columns", type=int, default=0, help="columns of blocks (default: as square as can be)")
    parser.add_argument("--cell", type=int, default=256, help="side of a cell in pixels (default: 256)")
    parser.add_argument("--placement", choices=[p.value for p in Placement], default=Placement.RANDOM.value)
    parser.add_argument("--seed", type=int, default=0, help="of placement and choice of fillers")
    parser.add_argument("--fit", choices=("crop", "pad", "stretch"), default="crop")
    parser.add_argument("--gaps", nargs=3, type=int, metavar=("INSIDE", "BETWEEN", "MARGIN"),
                        default=(gaps.inside, gaps.between, gaps.margin),
                        help=f"pixels (default: {next(iter(PRESETS))})")
    parser.add_argument("--background", default="white")
    parser.add_argument("--repeat-fillers", action="store_true", help="where there are too few, use them again")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Compose the grid and write picture and manifest."""
    from ..files import atomic_file, check_apart, write_json
    from ..grid.compose import Fit, compose, parse_color
    from ..grid.fillers import fillers_from_folder
    from ..grid.layout import Gaps, Layout, Placement, arrange, rows_for
    from ..grid.manifest import Origin, describe

    if arguments.out.suffix.lower() != ".png" or arguments.out.is_dir():
        raise AtelierError(f"--out is {str(arguments.out)!r}, which is not the name of a PNG file.",
                           "Give a name that ends in .png; the manifest gets the same with .json.")
    files = picture_files(arguments.pictures)
    manifest_file = arguments.out.with_suffix(".json")
    rows, columns = rows_for(len(files), arguments.columns)
    layout = Layout(rows=rows, columns=columns, block=arguments.block, cell_width=arguments.cell,
                    cell_height=arguments.cell, gaps=Gaps(*arguments.gaps))
    count = len(files) * (layout.cells_of_block - 1)
    if count and not arguments.fillers:
        raise AtelierError(f"Blocks of {arguments.block} × {arguments.block} cells need {count} fillers.",
                           "Give a folder of pictures with --fillers, or --block 1.")
    progress = ShellProgress()
    fillers = fillers_from_folder(arguments.fillers, count, arguments.seed, allow_repeats=arguments.repeat_fillers,
                                  progress=progress) if count else []
    cells = arrange(layout, len(files), count, Placement(arguments.placement), arguments.seed)
    grid = compose(layout, cells, open_pictures(files), [filler.picture for filler in fillers],
                   fit=Fit(arguments.fit), background=parse_color(arguments.background))
    sources = [*files, *(filler.path for filler in fillers)]
    sources += [beside for file in sources if (beside := file.with_suffix(".json")).is_file()]
    for written in (arguments.out, manifest_file):
        check_apart(written, sources)
    progress.close()
    manifest = describe(layout, cells, [Origin(source=file.name) for file in files],
                        [Origin(source=filler.path.name) for filler in fillers], arguments.seed).to_json()
    with atomic_file(arguments.out) as part:
        grid.save(part, "PNG")
    write_json(manifest_file, manifest)
    show(arguments, f"{arguments.out}: {grid.width} × {grid.height} pixels, {len(files)} pictures, {count} fillers",
         {"file": arguments.out, **manifest})
