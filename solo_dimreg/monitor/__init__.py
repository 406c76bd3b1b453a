"""The monitor: a callback for config and library, its buffer, alarm, files and tracker."""
