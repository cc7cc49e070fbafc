import numpy as np
import safetensors.numpy

from jaxunlearn.models import load_pretrained, save_pretrained
from jaxunlearn.models.checkpoints.families import FAMILIES, file_name
from jaxunlearn.tree import layer_names, named_leaves


def test_every_leaf_has_a_name_of_its_own_in_the_files(tiny):
    names = [
        n
        for name, leaf in named_leaves(tiny[1])
        for n in layer_names(name, leaf, tiny[0].stacked)
    ]
    row = FAMILIES["gpt2"]
    files = [file_name(row, name) for name in names]
    assert len(set(files)) == len(names) == 4 + 12 * 2
    # Every pair is of some leaf, and no leaf is named by the way out for strangers.
    assert {name.replace("/1/", "/{n}/").replace("/0/", "/{n}/") for name in names} == {
        leaf for leaf, _ in row.names
    }
    back = row._replace(names=tuple((b, a) for a, b in row.names))
    assert [file_name(back, name) for name in files] == names


def test_kernels_may_lie_transposed_in_the_files(
    tiny, tmp_path, monkeypatch, assert_same_bits
):
    row = FAMILIES["gpt2"]._replace(transposed=lambda name: name.endswith("/kernel"))
    monkeypatch.setitem(FAMILIES, "gpt2", row)
    save_pretrained(*tiny, tmp_path)
    found = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    kernel = np.asarray(tiny[1]["h"]["mlp"]["c_fc"]["kernel"])
    np.testing.assert_array_equal(found["transformer.h.1.mlp.c_fc.weight"], kernel[1].T)
    assert_same_bits(load_pretrained(tmp_path)[1], tiny[1])
