"""The plugin that Hydra finds: the build puts this folder into Hydra's namespace ``hydra_plugins``.

*Every* Hydra program of the environment imports this module. It therefore imports neither torch nor
solo-learn nor our package, and does nothing unless the program has loaded solo-learn.
"""

from __future__ import annotations

import os
import sys

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

# The variable that is set for the processes that a sweep of a solo-learn script starts.
REGISTERED = "SOLO_DIMREG_REGISTERED"


class SoloDimregSearchPath(SearchPathPlugin):
    """A Hydra plugin that appends our configs to the search path of a solo-learn script."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Check the command line, append our configs and register our methods; Hydra calls this once."""
        if "solo.methods" in sys.modules:
            from solo_dimreg.hydra_plugin import extend
            from solo_dimreg.solo_learn import register
            from solo_dimreg.solo_learn.scripts import accept_own_blocks, check_command_line, watch_script
            from solo_dimreg.training.scripts import ScriptChecks

            is_sweep = check_command_line()
            accept_own_blocks()
            register()
            extend(search_path)
            watch_script(ScriptChecks())
            if is_sweep:
                os.environ[REGISTERED] = "1"


if os.environ.get(REGISTERED):  # a worker of --multirun gets its task from a launcher, and composes nothing
    try:
        from solo_dimreg.solo_learn import register
        from solo_dimreg.solo_learn.scripts import accept_own_blocks

        register()
        accept_own_blocks()
    except Exception as error:  # another Hydra program, which the sweep has started
        print(f"solo-dimreg: the methods are not registered here ({error})", file=sys.stderr)
