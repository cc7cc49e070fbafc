"""What is refused by the model's configuration, before any work."""

import pytest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "npo", "--beta", "-1"), "--beta -1"),
        (("--method", "npo", "--warmup-steps", "-1"), "--warmup-steps -1"),
        (("--method", "ssd", "--layers", "nothing"), "--layers 'nothing' matches no"),
        (("--method", "ssd", "--model", "nomodel"), "nomodel"),
    ],
)
def test_what_can_be_seen_at_once_is_refused_before_anything_is_shown(
    cli, learned, tmp_path, capsys, options, message
):
    folder, _ = learned
    status = cli(
        *("unlearn", "--model", folder / "run" / "model", "--run", folder / "run"),
        *("--retain", folder / "retain.json", "--out", tmp_path / "o"),
        *("--ids", "0", *options),
    )
    assert status == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""
