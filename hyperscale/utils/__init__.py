"""Helpers that know nothing of the domain: files, settings and their validation, paths, the hub, random numbers.

Imported from the module that defines each: `files`, `row_files`, `yaml_files`, `settings`, `validation`, `paths`, `hub`
and `counter_rng`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.utils.files import write_atomic as write_atomic
    from hyperscale.utils.paths import data_dir as data_dir
    from hyperscale.utils.row_files import list_data_files as list_data_files
    from hyperscale.utils.row_files import read_rows as read_rows
    from hyperscale.utils.settings import setting as setting
    from hyperscale.utils.settings import settings_of as settings_of
    from hyperscale.utils.validation import validate as validate
    from hyperscale.utils.yaml_files import read_yaml as read_yaml

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "files": ["write_atomic"],
        "paths": ["data_dir"],
        "row_files": ["list_data_files", "read_rows"],
        "settings": ["setting", "settings_of"],
        "validation": ["validate"],
        "yaml_files": ["read_yaml"],
    },
)
