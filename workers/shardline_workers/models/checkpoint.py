"""An open checkpoint: what decoder it holds and where its tensors are, in either format."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from shardline_workers.files.gguf_file import GgufFile
from shardline_workers.files.model_source import ModelFiles, ModelKind
from shardline_workers.files.safetensors_folder import SafetensorsFolder
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.gguf_config import GgufConfig
from shardline_workers.models.hugging_face_config import HuggingFaceConfig
from shardline_workers.weights.stacked_experts import UnstackedSource
from shardline_workers.weights.tensor_names import NameTable
from shardline_workers.weights.tensor_source import GgufTensorSource, SafetensorsTensorSource, TensorSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model on the disk, understood but not yet read."""

    shape: DecoderShape
    names: NameTable
    source: TensorSource


@contextmanager
def open_checkpoint(files: ModelFiles) -> Iterator[Checkpoint]:
    """Opens a model's files for as long as its weights are read.

    Raises:
        ModelFileError: the files are broken, or hold a model that is not supported; the text says what is.
    """
    match files.kind:
        case ModelKind.GGUF:
            with GgufFile.open(files.path) as file:
                yield _gguf_checkpoint(file)
        case ModelKind.FOLDER:
            config = HuggingFaceConfig.read(files.path)
            family = config.family()
            with closing(SafetensorsFolder.open(files.path)) as folder:
                yield _checkpoint(
                    config.decoder_shape(family),
                    family.hugging_face.names,
                    SafetensorsTensorSource(files.path, folder),
                )


def _gguf_checkpoint(file: GgufFile) -> Checkpoint:
    config = GgufConfig(file)
    family = config.family()
    return _checkpoint(config.decoder_shape(family), family.gguf.names, GgufTensorSource(file))


def _checkpoint(shape: DecoderShape, names: NameTable, source: TensorSource) -> Checkpoint:
    return Checkpoint(shape=shape, names=names, source=UnstackedSource(source, names) if names.stacks else source)
