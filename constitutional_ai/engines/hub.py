"""The hub of models: whether it can be reached, and what of it is here already. Needs no torch."""

HUB_SECONDS = 5.0  # to wait for the hub's first sign


def is_here(hub_id: str, revision: str | None) -> bool:
    """Whether a model was downloaded to this machine before."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(hub_id, "config.json", revision=revision), str)


def hub_problem() -> str:
    """Why the hub cannot be reached, "" if it can; asked once, where the hub's library retries."""
    from httpx2 import TransportError
    from huggingface_hub import constants, get_session
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE forbids to download it"
    except TransportError as error:
        return f"{constants.ENDPOINT} cannot be reached ({error}); check the name and the network"
    return ""
