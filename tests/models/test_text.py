"""Text encoders: what they tell apart, what they ignore, that they never change, and what a folder may hold."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    GPT2Config,
    GPT2Model,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

from telecine_models.backlot import film
from telecine_models.pipeline import TelecinePipeline
from telecine_models.text import HashTextEncoder, TextEncoder, TransformersTextEncoder, load_text_encoder
from telecine_models.video_dit.model import VideoDiT

ENCODER = HashTextEncoder(text_dim=32, max_tokens=12)


def test_shapes_and_mask_follow_the_words() -> None:
    tokens, mask = ENCODER.encode(["a red circle", "one two three four"])
    assert tokens.shape == (2, 12, 32)
    assert tokens.dtype == torch.float32
    assert mask.sum(1).tolist() == [3, 4]
    assert tokens[~mask].abs().max() == 0


def test_empty_caption_has_no_token() -> None:
    assert not ENCODER.encode(["", " ,.!"])[1].any()


def test_case_and_punctuation_do_not_matter_but_words_and_their_order_do() -> None:
    tokens, _ = ENCODER.encode(["a red circle", "A red, circle!", "a red square", "a circle red"])
    assert torch.equal(tokens[0], tokens[1])
    assert not torch.allclose(tokens[0], tokens[2])
    assert not torch.allclose(tokens[0], tokens[3])


def test_words_beyond_the_limit_are_dropped() -> None:
    tokens, mask = ENCODER.encode([" ".join("abcdefghijklmnop"), " ".join("abcdefghijkl")])
    assert mask.all()
    assert torch.equal(tokens[0], tokens[1])


def test_a_caption_is_encoded_alike_in_any_batch() -> None:
    alone, _ = ENCODER.encode(["two blue squares"])
    together, _ = ENCODER.encode(["something else entirely", "two blue squares", ""])
    assert torch.equal(alone[0], together[1])


def test_all_words_of_backlot_have_vectors_of_their_own() -> None:
    captions = [shot["caption"] for seed in range(40) for shot in film_of(seed)["shots"]]
    words = sorted({word for caption in captions for word in caption.split()})
    assert len(words) > 30
    vectors = HashTextEncoder().encode(words)[0][:, 0]
    distances = torch.cdist(vectors, vectors) + 1e9 * torch.eye(len(words))
    assert distances.min() > 4


def test_the_table_depends_on_nothing_but_the_seed() -> None:
    torch.manual_seed(1)
    assert torch.equal(HashTextEncoder(seed=3).table, HashTextEncoder(seed=3).table)
    assert not torch.equal(HashTextEncoder(seed=3).table, HashTextEncoder(seed=4).table)
    assert not list(ENCODER.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_dim": 7}, "text_dim must be even"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"num_buckets": 0}, "num_buckets"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HashTextEncoder(**settings)


def film_of(seed: int) -> dict[str, Any]:
    return film(seed, num_frames=30, fps=5, width_px=16, height_px=16).truth


# Encoders of transformers, built here and as small as they can be

WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "circle", "square", "moves", "left"]
SMALL = {"vocab_size": len(WORDS), "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
T5 = T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)


def save_tokenizer(folder: Path, **settings: Any) -> Path:
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    words.normalizer, words.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=words, **special, **settings).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tokenizer(tmp_path_factory.mktemp("t5"), model_max_length=6)
    torch.manual_seed(0)
    T5EncoderModel(T5).save_pretrained(folder)
    return folder


def test_an_encoder_of_transformers_gives_tokens_and_the_mask_of_real_ones(t5: Path) -> None:
    encoder = load_text_encoder(t5)
    tokens, mask = encoder.encode(["a red circle", "A BLUE square moves left", "a " * 20])
    assert tokens.shape == (3, 6, encoder.text_dim) == (3, 6, 16)
    # Each caption ends with a token of its own, and it is cut to leave room for that.
    assert mask.sum(1).tolist() == [4, 6, 6]
    assert tokens[~mask].abs().max() == 0
    assert isinstance(encoder, TextEncoder) and isinstance(ENCODER, TextEncoder)
    assert ENCODER.text_dim == 32


def test_its_tokens_are_the_last_hidden_states(t5: Path) -> None:
    tokens, _ = load_text_encoder(t5).encode(["a red circle"])
    alone = T5EncoderModel.from_pretrained(t5)(torch.tensor([[3, 4, 6, 1]])).last_hidden_state
    torch.testing.assert_close(tokens[:, :4], alone, rtol=1e-5, atol=1e-6)


def test_an_empty_caption_has_the_end_token_alone(t5: Path) -> None:
    tokens, mask = load_text_encoder(t5).encode(["", "a"])
    assert mask.sum(1).tolist() == [1, 2]
    assert tokens[0, 0].abs().max() > 0


def test_its_captions_are_encoded_alike_in_any_batch(t5: Path) -> None:
    encoder = load_text_encoder(t5)
    alone, _ = encoder.encode(["a red circle"])
    together, _ = encoder.encode(["a blue square moves left", "a red circle", "a red square"])
    torch.testing.assert_close(together[1], alone[0], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(together[2], alone[0], atol=1e-3)


def test_it_is_frozen_even_where_everything_is_put_in_training_mode(t5: Path) -> None:
    encoder = load_text_encoder(t5)
    encoder.model.config.dropout_rate = 0.5
    trainer = torch.nn.ModuleList([encoder]).train()
    assert trainer.training and not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    tokens, _ = encoder.encode(["a red circle"])
    assert not tokens.requires_grad
    assert torch.equal(tokens, encoder.encode(["a red circle"])[0])


def test_max_tokens_sets_the_length_and_is_kept_when_it_is_saved(t5: Path, tmp_path: Path) -> None:
    encoder = load_text_encoder(t5, max_tokens=9)
    tokens, mask = encoder.encode(["a red circle moves left"])
    assert tokens.shape[1] == 9
    encoder.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    again, same = TransformersTextEncoder.from_pretrained(tmp_path).encode(["a red circle moves left"])
    assert torch.equal(again, tokens) and torch.equal(same, mask)
    # Products of unaligned weights round differently, in larger models than this.
    assert all(parameter.data_ptr() % 64 == 0 for parameter in encoder.parameters())
    low = TransformersTextEncoder.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert low.encode(["a"])[0].dtype == torch.bfloat16


def test_of_an_encoder_decoder_the_encoder_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    both = T5ForConditionalGeneration(T5).eval()
    both.save_pretrained(save_tokenizer(tmp_path, model_max_length=6))
    encoder = load_text_encoder(tmp_path)
    assert not any("decoder" in name for name, _ in encoder.named_parameters())
    expected = both.encoder(torch.tensor([[3, 4, 1]])).last_hidden_state
    torch.testing.assert_close(encoder.encode(["a red"])[0][:, :3], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        lambda: CLIPTextModel(
            CLIPTextConfig(hidden_size=16, max_position_embeddings=8, bos_token_id=0, eos_token_id=1, **SMALL)
        ),
        lambda: BertModel(BertConfig(hidden_size=16, max_position_embeddings=8, **SMALL)),
    ],
    ids=["CLIP", "BERT"],
)
def test_other_families_load_too_with_the_tokenizer_beside_the_model(tmp_path: Path, model: Any) -> None:
    """The layout of diffusers: text_encoder/ and tokenizer/, and a tokenizer that knows no limit."""
    torch.manual_seed(0)
    model().save_pretrained(tmp_path / "text_encoder")
    save_tokenizer(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match=r"model_max_length of the tokenizer must lie in \[1, 100000\], got 10000"):
        load_text_encoder(tmp_path / "text_encoder", tmp_path / "tokenizer")
    encoder = load_text_encoder(tmp_path / "text_encoder", tmp_path / "tokenizer", max_tokens=8)
    tokens, mask = encoder.encode(["a red circle", "a blue circle"])
    assert (tokens.shape, mask.sum(1).tolist()) == ((2, 8, 16), [4, 4])
    assert not torch.allclose(tokens[0], tokens[1], atol=1e-3)


def test_a_folder_that_lacks_something_is_named(t5: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder must hold config.json, and .*nowhere does not"):
        load_text_encoder(tmp_path / "nowhere")
    T5EncoderModel(T5).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="folder must hold tokenizer_config.json"):
        load_text_encoder(tmp_path)
    with pytest.raises(ValueError, match="max_tokens must be at least 1, got 0"):
        load_text_encoder(t5, max_tokens=0)


def test_pickled_weights_of_an_encoder_are_refused(t5: Path, tmp_path: Path) -> None:
    save_tokenizer(tmp_path, model_max_length=6)
    T5.save_pretrained(tmp_path)
    torch.save(T5EncoderModel(T5).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"folder must hold \*.safetensors"):
        load_text_encoder(tmp_path)


def test_a_model_that_is_no_text_encoder_is_refused(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1)
    GPT2Model(config).save_pretrained(save_tokenizer(tmp_path, model_max_length=6))
    with pytest.raises(ValueError, match="GPT2Config"):
        load_text_encoder(tmp_path)


def test_code_in_the_folder_is_never_run(t5: Path, tmp_path: Path) -> None:
    save_tokenizer(tmp_path, model_max_length=6)
    (tmp_path / "model.safetensors").write_bytes((t5 / "model.safetensors").read_bytes())
    code = {"AutoConfig": "own.Config", "AutoModelForTextEncoding": "own.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": code}))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')")
    with pytest.raises(ValueError, match="custom code"):
        load_text_encoder(tmp_path)
    assert not (tmp_path / "was-run").exists()


def test_a_pipeline_saves_it_and_loads_it_and_makes_the_same_frames(t5: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    transformer = VideoDiT(num_layers=1, num_heads=2, head_dim=16, text_dim=16)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    pipeline = TelecinePipeline(transformer, load_text_encoder(t5))
    pipeline.save_pretrained(tmp_path / "pipeline")
    again = TelecinePipeline.from_pretrained(tmp_path / "pipeline")
    asked = {"num_frames": 2, "height_px": 8, "width_px": 8, "num_steps": 2}
    for each in (pipeline, again):
        each.set_progress_bar_config(disable=True)
    red, blue = (pipeline(prompt, **asked) for prompt in ("a red circle", "a blue square"))
    assert (red != blue).any()
    assert (again("a red circle", **asked) == red).all()
