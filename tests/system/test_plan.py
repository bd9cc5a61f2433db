"""What a demo hands its children."""

from pathlib import Path

from rest_api.demo import plan


def test_a_demo_with_tokens_asks_for_them_at_each_pod_and_one_without_at_none(tmp_path: Path) -> None:
    place = plan.Place(tmp_path, tmp_path, "127.0.0.1:9092", "", embedded=False)

    def handed(tokens_file: Path | None) -> list[str | None]:
        asked = plan.Plan(8000, 2, 3, 2, None, None, 9000, "warning", tokens_file=tokens_file)
        return [plan.api(asked, place, n).env.get("SIGNER_REST_API_TOKENS_FILE") for n in range(2)]

    assert handed(None) == [None, None]
    assert handed(tmp_path / "tokens.toml") == [str(tmp_path / "tokens.toml")] * 2
