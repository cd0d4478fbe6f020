"""scan+dividemix is compared by scanmix.py, which writes both files: python tests/parity/scan_dividemix.py --reference PATH"""

from __future__ import annotations

import common
import scanmix

if __name__ == "__main__":
    with common.on_cpu():
        scanmix.main()
