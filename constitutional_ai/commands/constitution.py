"""``cai constitution``: look at constitutions."""

from typing import Annotated

import typer

from constitutional_ai.commands.options import group

app = group("Look at constitutions.")


@app.command()
def show(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Or a shipped name.")] = "lab",
) -> None:
    """Print a constitution's principles, and the prompts that derive from them."""
    from constitutional_ai.constitution import load_constitution

    constitution = load_constitution(file)
    print(f"{constitution.name} {constitution.version}  {constitution.hash}")
    if constitution.description:
        print(constitution.description)
    for principle in constitution.principles:
        use = f"{', '.join(principle.use)} on {', '.join(principle.prompts)} prompts"
        print(f"\n{principle.name}  ({principle.kind}, weight {principle.weight:g}, {use})")
        print(f"  {principle.text}")
        print(f"  critique:   {principle.critique_prompt}")
        print(f"  revision:   {principle.revision_prompt}")
        print(f"  preference: {principle.preference_prompt}")
