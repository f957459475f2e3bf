"""Tables whose cells cannot break out of them."""

from logging_system.files.summaries import escape, table


def test_table() -> None:
    assert table(("a", "b"), [("1", "x|y\nz"), ("_", "<b>")]) == (
        "| a | b |\n| --- | --- |\n| 1 | x\\|y z |\n| \\_ | &lt;b&gt; |"
    )


def test_escape_leaves_plain_text_alone() -> None:
    assert escape("python main.py --max-steps 8") == "python main.py --max-steps 8"
    assert escape("a*b`c[d]\\") == "a\\*b\\`c\\[d\\]\\\\"
