import huggingface_hub
import pytest

from jaxunlearn.data import load_tokenizer
from jaxunlearn.hub import is_repository, local_folder
from jaxunlearn.models import load_pretrained


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, where asking the hub fails the test."""

    def ask(*args, **kwargs):
        raise AssertionError(f"the hub was asked for {args}")

    for name in ("run/model", "run/tokenizer", "run/start"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", ask)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "run/modell",
        "./gpt2",
        "../gpt2",
        "/no/such",
        "~/gpt2",
        "owner/name/",
        "owner/name/more",
        "run//model2",
        "broken",
        "small.json",
        "owner/weights.safetensors",
        "name with spaces",
        "x" * 5000,
        "x" * 5000 + "/..",
        "nul\0",
    ],
)
@pytest.mark.parametrize("load", [load_pretrained, load_tokenizer])
def test_a_path_never_goes_to_the_network(folder, load, name):
    with pytest.raises(FileNotFoundError, match="no such directory: ") as caught:
        load(name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_near_is_named(folder):
    with pytest.raises(FileNotFoundError, match=r"modell; near it stands run/model$"):
        local_folder("run/modell", [])
    with pytest.raises(
        FileNotFoundError, match=r"zzz; run holds model, start, tokenizer$"
    ):
        local_folder("run/zzz", [])
    with pytest.raises(FileNotFoundError, match=r"; near it stands run$"):
        local_folder("./rum/model", [])


@pytest.mark.parametrize("load", [load_pretrained, load_tokenizer])
def test_no_name_and_a_file_are_refused(folder, load):
    (folder / "file").write_text("")
    with pytest.raises(ValueError, match="is empty"):
        load("")
    with pytest.raises(ValueError, match="file is a file: give the directory"):
        load("file")


def test_a_folder_is_itself(folder):
    for name in ("run/model", folder / "run" / "model", "."):
        assert local_folder(name, []).samefile(name)


def test_a_repository_is_asked_for_by_its_files(folder, monkeypatch):
    def snapshot_download(name, *, allow_patterns):
        assert (name, allow_patterns) == ("owner/gpt2-1.5b", ["*.json"])
        return "run/model"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert str(local_folder("owner/gpt2-1.5b", ["*.json"])) == "run/model"
    assert is_repository("gpt2")


def test_without_a_network_one_line_comes_at_once(tmp_path, monkeypatch):
    """Retries would sleep: here they would fail the test, and take half a minute."""

    def sleep(seconds):
        raise AssertionError(f"waits {seconds} s")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt3").mkdir()
    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    near = "near it stands gpt3, and its"
    with pytest.raises(FileNotFoundError, match=near) as caught:
        load_tokenizer("gpt2")
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="download from the .* hub failed"):
        load_pretrained("owner/gpt2")
