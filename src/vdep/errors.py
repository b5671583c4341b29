"""The errors that a user can do something about. Their message says what is wrong, where, and what to do."""


class UserError(Exception):
    """Shown without a traceback: the message is meant for the person at the keyboard."""


class ConfigError(UserError):
    """The configuration asks for something that does not exist or cannot be."""


class DataError(UserError):
    """A conversation, an image or an archive is not what it should be."""


class AssetError(UserError):
    """A download or a made asset is missing, incomplete, or not the bytes that were recorded."""


class CheckpointError(UserError):
    """A checkpoint is damaged, or belongs to another recipe."""


class RunLockedError(UserError):
    """Another process is writing the same run."""


class TrainingError(UserError):
    """Training cannot go on: a loss that is not finite, a rank that died, a machine without what the recipe needs."""


class EvaluationError(UserError):
    """An evaluation ended without a score that can be trusted."""


class ReportError(UserError):
    """A table or a figure cannot be built from the results at hand."""


class HubError(UserError):
    """A hub does not take what is published."""
