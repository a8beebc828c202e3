"""Configuration keys of losses on fine structure, which several models share."""

from __future__ import annotations

from pydantic import Field

from talkingface.config.component_spec import ComponentSpec
from talkingface.config.schema import Section


class DetailLoss(Section):
    """Weights of losses on fine structure, of pictures in 0..1; not in any official code."""

    gradient_wt: float = Field(
        0.0, ge=0, description="L1 of the differences of neighbouring pixels."
    )
    spectrum_wt: float = Field(0.0, ge=0, description="L1 of the amplitude spectra of blocks.")
    features_wt: float = Field(
        0.0,
        ge=0,
        description="Distance in the features of a trained FaceFeatures; used only if one exists.",
    )


class FeatureWeights(Section):
    """Component of the feature loss."""

    features: str | None = Field(
        "auto", description="auto (the newest trained FaceFeatures), a path or run id, or null."
    )


def face_features(loss: DetailLoss, weights: FeatureWeights) -> dict[str, ComponentSpec]:
    """The network of ``loss.features_wt``; empty if this is 0."""
    if loss.features_wt == 0:
        return {}
    purpose = "the feature loss (loss.features_wt)"
    return {"features": ComponentSpec(weights.features, purpose, model="FaceFeatures")}
