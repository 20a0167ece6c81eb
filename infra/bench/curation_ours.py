"""Our side of the curation benches, in a process of its own: ``curation_ours.py VIDEOS MODE`` under a TELECINE_HOME.

One process runs the components one after the other, as a laptop does, with store, commits and tracking; it prints their
outputs as JSON.
"""

import json
import os
import sys
from typing import Any

from telecine import component, settings
from telecine.execution import Call, execute

MAX_CLIP_S = 10.0
RUN = "bench"
OPEN: dict[str, Any] = {
    "max_cut_doubt": 1e9,
    "max_black_bars": 1.0,
    "max_clipping": 1.0,
    "max_blur": 1.0,
    "max_blockiness": 1.0,
    "max_overlay_text": 1.0,
    "max_logo": 1.0,
    "max_freeze": 1.0,
    "min_motion": 0.0,
    "max_motion": 1e9,
    "min_stability": 0.0,
    "max_flicker": 1.0,
    "min_suitability": 1.0,
}
"""Thresholds that the script does not have are wide open, so that both cut the same clips; all is measured."""


def step(name: str, **inputs: Any) -> dict[str, Any]:
    """Outputs of a component."""
    found = component.find(name)
    here = settings.from_environment(dict(os.environ))
    return execute(Call(component=found, inputs=found.parse(inputs), run=RUN, task=name, settings=here)).outputs


def main() -> None:
    """See the module."""
    videos, mode = sys.argv[1:]
    split = step("curate.split", videos_uri=videos, max_clip_s=MAX_CLIP_S)
    kept = step("curate.filter", clips_uri=split["clips_uri"], **OPEN)
    cut = step("curate.cut", clips_uri=kept["clips_uri"], videos_uri=videos, mode=mode)
    print(json.dumps({"split": split, "filter": kept, "cut": cut}))


if __name__ == "__main__":
    main()
