from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1] / "configs"
PRETRAIN = sorted(ROOT.glob("pretrain/*/*.yaml"))
LINEAR = sorted(ROOT.glob("linear/*/*.yaml"))

# What a device sees after solo-learn's scaling, from the papers' released code.
RELEASED_LEARNING_RATES = {
    "simclr": 0.075 * 2048**0.5,
    "ldreg_simclr": 0.075 * 2048**0.5,
    "ldreg_simclr_tuned": 0.5 * 2048 / 256,
    "ldreg_byol": 0.4 * 2048 / 256,
    "ldreg_mocov3": 0.6 * 2048 / 256,
    "directclr": 4.8,
}


def load(path: Path):
    with initialize_config_dir(str(path.parent), version_base="1.2"):
        return compose(path.stem)


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PRETRAIN + LINEAR, ids=label)
def test_every_config_composes_from_its_own_folder(path):
    config = load(path)
    assert config.wandb.enabled is False
    assert config.checkpoint.enabled and config.max_epochs > 0
    assert path.parents[1].name == "linear" or sum(view.num_crops for view in config.augmentations) == 2


@pytest.mark.parametrize("path", PRETRAIN, ids=label)
def test_ldreg_shows_its_settings_and_fits_the_batch(path):
    config = load(path)
    assert ("regularizers" in config) == config.method.startswith("ldreg_")
    if "regularizers" in config:
        settings = config.regularizers.ldreg
        assert set(settings) == {"weight", "k", "warmup_epochs"}
        if path.parent.name != "digits":
            assert settings.weight == (0.01 if config.method == "ldreg_simclr" else 0.005)
        assert settings.k < 2 * config.optimizer.batch_size
        assert settings.warmup_epochs < config.max_epochs


@pytest.mark.parametrize("path", sorted(ROOT.glob("pretrain/imagenet/*.yaml")), ids=label)
def test_imagenet_has_the_released_learning_rates(path):
    config = load(path)
    batch = config.optimizer.batch_size * len(config.devices)
    assert config.optimizer.lr * batch / 256 == pytest.approx(RELEASED_LEARNING_RATES[path.stem], rel=1e-4)


def test_the_digits_configs_share_data_backbone_and_epochs():
    shared = ["backbone", "data", "augmentations", "max_epochs", "devices"]
    configs = [load(path) for path in sorted(ROOT.glob("pretrain/digits/*.yaml"))]
    assert len(configs) == 6
    settings = [OmegaConf.to_container(OmegaConf.masked_copy(config, shared)) for config in configs]
    assert all(other == settings[0] for other in settings)
    assert {config.optimizer.batch_size for config in configs} == {128}
