"""Configurations of merges: mergekit's YAML is read, strictly, and says for every tensor what is in force."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.merge import MergeRecipe, load_merge, parse_merge
from engine.errors import ConfigError
from engine.merge_methods.registry import METHODS, SCHEMAS

WEIGHT = "model.layers.3.mlp.up_proj.weight"


def loaded(folder: Path, text: str) -> MergeRecipe:
    path = folder / "merge.yaml"
    path.write_text(text)
    return load_merge(path, SCHEMAS)


def faults(folder: Path, text: str) -> list[str]:
    """What is wrong, a line for each fault."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text)
    assert caught.value.file == str(folder / "merge.yaml")
    first, *rest = caught.value.message.split("\n  ")
    if not rest:
        return [first]
    assert first == f"has {len(rest)} faults:"
    return rest


def ties(models: str = "", parameters: str = "", rest: str = "") -> str:
    listed = models or "  - {model: a, parameters: {weight: 1}}\n  - {model: b, parameters: {weight: 0.5}}\n"
    shared = f"parameters: {parameters}\n" if parameters else ""
    return f"merge_method: ties\nbase_model: base\nmodels:\n{listed}{shared}{rest}"


# What is right


def test_a_configuration_as_it_is_found_in_the_wild(tmp_path):
    """The base among the models, and int8_mask."""
    recipe = loaded(
        tmp_path,
        """
models:
  - model: mistralai/Mistral-7B-v0.1
    # no parameters necessary for base model
  - model: OpenPipe/mistral-ft-optimized-1218
    parameters:
      density: 0.5
      weight: 0.5
  - model: mlabonne/NeuralHermes-2.5-Mistral-7B
    parameters:
      density: [1, 0.7, 0.1] # density gradient
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: mistralai/Mistral-7B-v0.1
parameters:
  normalize: true
  int8_mask: true
dtype: float16
""",
    )
    assert (recipe.schema.name, recipe.base) == ("ties", "mistralai/Mistral-7B-v0.1")
    assert recipe.models == ("OpenPipe/mistral-ft-optimized-1218", "mlabonne/NeuralHermes-2.5-Mistral-7B")
    assert (recipe.wide, recipe.out_dtype, recipe.tokenizer) == (False, "F16", None)
    assert recipe.notes == ("parameters.int8_mask: changes nothing here; masks take no memory",)
    assert recipe.resolve("model.layers.0.mlp.up_proj.weight", 0, 5) == {
        "weight": (0.5, 0.5), "density": (0.5, 1.0), "lambda_": 1.0, "normalize": True,
    }  # fmt: skip
    assert recipe.resolve("model.layers.4.self_attn.q_proj.weight", 4, 5)["weight"] == (0.5, 0)
    assert recipe.resolve("model.layers.1.mlp.up_proj.weight", 1, 5)["density"] == (0.5, 0.85)


def test_slerp_by_layer_and_module(tmp_path):
    recipe = loaded(
        tmp_path,
        """
merge_method: slerp
base_model: a
models: [{model: a}, {model: b}]
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.5
dtype: bfloat16
""",
    )
    assert recipe.models == ("b",)
    found = [recipe.resolve(f"model.layers.{i}.self_attn.q_proj.weight", i, 9)["t"] for i in range(9)]
    assert found == pytest.approx([0, 0.25, 0.5, 0.4, 0.3, 0.5, 0.7, 0.85, 1])
    assert recipe.resolve("model.layers.8.mlp.gate_proj.weight", 8, 9)["t"] == 0
    assert recipe.resolve("model.norm.weight", None, 9)["t"] == 0.5


def test_a_gradient_outside_of_the_layers(tmp_path):
    """What lies there has the first number, and the only layer the last, as with mergekit."""
    recipe = loaded(tmp_path, ties(parameters="{density: [0.1, 0.9]}"))
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert recipe.resolve(name, None, 32)["density"] == (0.1, 0.1)
    assert recipe.resolve(WEIGHT, 0, 1)["density"] == (0.9, 0.9)
    assert recipe.resolve(WEIGHT, 40, 32)["density"] == (0.9, 0.9)


def test_which_value_goes_first(tmp_path):
    """A model's own before the shared one before the default; conditions that do not apply stand back."""
    models = """
  - {model: a, parameters: {weight: [{filter: q_proj, value: 2}, {filter: "*", value: 3}]}}
  - {model: b, parameters: {weight: [{filter: q_proj, value: 4}], density: 0.2}}
"""
    recipe = loaded(tmp_path, ties(models, "{weight: 5, density: [{filter: k_proj, value: 0.4}]}"))
    assert recipe.resolve("x.q_proj.weight", 0, 2) == {
        "weight": (2, 4), "density": (1.0, 0.2), "lambda_": 1.0, "normalize": True,
    }  # fmt: skip
    assert recipe.resolve("x.k_proj.weight", 0, 2)["weight"] == (3, 5)
    assert recipe.resolve("x.k_proj.weight", 0, 2)["density"] == (0.4, 0.2)


def test_what_no_condition_gives_is_said_of_the_tensor(tmp_path):
    models = "  - {model: a, parameters: {weight: {filter: mlp, value: 1}}}\n"
    recipe = loaded(tmp_path, ties(models))
    assert recipe.resolve(WEIGHT, 3, 9)["weight"] == (1,)
    with pytest.raises(ConfigError, match=r"tensor 'lm_head.weight': no value of weight applies"):
        recipe.resolve("lm_head.weight", None, 9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (False, None)), ("dtype: float32", (False, "F32")), ("dtype: bfloat16", (False, "BF16")),
        ("dtype: float64", (True, None)), ("dtype: float64\nout_dtype: float16", (True, "F16")),
        ("dtype: float32\nout_dtype: bfloat16", (False, "BF16")), ("out_dtype: float32", (False, "F32")),
    ],
)  # fmt: skip
def test_dtypes(tmp_path, text, expected):
    recipe = loaded(tmp_path, ties(rest=text))
    assert (recipe.wide, recipe.out_dtype) == expected


def test_of_a_method_that_knows_no_base_it_is_a_model_like_others(tmp_path):
    recipe = loaded(
        tmp_path,
        "merge_method: linear\nbase_model: a\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n",
    )
    assert (recipe.models, recipe.base) == (("a", "b"), "a")
    assert recipe.resolve(WEIGHT, 3, 9) == {"weight": (1, 1), "normalize": True}
    twice = loaded(
        tmp_path, "merge_method: linear\nmodels: [{model: a}, {model: a}]\nparameters: {weight: 1}\n"
    )
    assert twice.models == ("a", "a")


def test_what_the_base_is_given_is_noted(tmp_path):
    models = "  - {model: base, parameters: {weight: 0.5}}\n  - {model: b, parameters: {weight: 0.5}}\n"
    recipe = loaded(tmp_path, ties(models))
    assert recipe.models == ("b",)
    assert recipe.notes == ("models.0.parameters: change nothing; the base has no task vector",)


@pytest.mark.parametrize("method", SCHEMAS)
def test_what_is_resolved_is_what_the_function_takes(method):
    schema = SCHEMAS[method]
    data = {"merge_method": method, "base_model": "base", "models": [{"model": m} for m in ("a", "b")]}
    data["models"] = data["models"][: int(min(schema.most, 2))]
    data["parameters"] = {p.name: 0.5 for p in schema.parameters if p.default is None}
    recipe = parse_merge(data, SCHEMAS, "x.yaml")
    found = recipe.resolve(WEIGHT, 3, 9)
    needs = {need.value for need in schema.needs}
    assert (
        set(found)
        == set(METHODS[method].function.__wrapped__.__kwdefaults__ or {}) | set(data["parameters"]) - needs
    )


def test_t_may_be_infinite_and_nothing_else():
    data = {
        "merge_method": "outlier",
        "base_model": "b",
        "models": [{"model": "a"}],
        "parameters": {"t": math.inf},
    }
    assert parse_merge(data, SCHEMAS, "x").resolve(WEIGHT, 0, 1) == {"t": math.inf}
    data["parameters"] = {"t": math.nan}
    with pytest.raises(ConfigError, match=r"parameters.t: expected at least 0, found nan"):
        parse_merge(data, SCHEMAS, "x")


# What is wrong


def test_all_faults_are_said_at_once(tmp_path):
    text = """
merge_method: ties
models:
  - {model: a, parameters: {wieght: 1, density: 2}}
  - {modle: b, parameters: {weight: heavy, lambda: 1}}
  - {model: c}
paramters: {}
parameters: {normalise: yes, normalize: 1, density: [{filter: mlp, valu: 1}, 3]}
dtype: fp16
out_dtype: float64
tokenizer_source: first
slices: []
"""
    assert sorted(faults(tmp_path, text)) == [
        "dtype: expected 'float64', 'float32', 'float16' or 'bfloat16', found 'fp16'",
        "models.0.parameters.density: expected a number from 0 to 1, found 2",
        "models.0.parameters.weight: is missing",
        "models.0.parameters.wieght: there is no such parameter of ties; did you mean 'weight'?",
        "models.1.model: is missing",
        "models.1.modle: there is no such key; did you mean 'model'?",
        "models.1.parameters.lambda: is the same for all models and belongs under 'parameters'",
        "models.1.parameters.weight: expected a number, found 'heavy'",
        "models.2.parameters.weight: is missing",
        "out_dtype: expected 'float32', 'float16' or 'bfloat16', found 'float64'",
        "parameters.density.0.valu: there is no such key; did you mean 'value'?",
        "parameters.density.0.value: is missing",
        "parameters.density.1: expected filter and value, found 3",
        "parameters.normalise: there is no such parameter of ties; did you mean 'normalize'?",
        "parameters.normalize: expected true or false, found 1",
        "paramters: there is no such key; did you mean 'parameters'?",
        "slices: layers are not cut out and stacked; list whole models under 'models'",
        "tokenizer_source: expected 'union' or 'base', found 'first'",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [{model: a}]", ["merge_method: is missing"]),
        ("{}", ["merge_method: is missing", "models: is missing"]),
        ("[1]", ["expected keys and values, found a list"]),
        ("merge_method: 3\nmodels: [{model: a}]", ["merge_method: expected a valid string, found 3"]),
        ("merge_method: tise\nmodels: [{model: a}]", ["merge_method: there is no such method; did you mean 'ties'?"]),
        ("merge_method: passthrough\nmodels: [{model: a}]", ["merge_method: there is no such method"]),
        ("merge_method: linear\nmodels: []", ["models: names no model"]),
        ("merge_method: linear\nmodels: a", ["models: expected a list, found 'a'"]),
        ("merge_method: linear\nmodels: [a]", ["models.0: expected keys and values, found 'a'"]),
        ("merge_method: linear\nmodels: [{model: a}]", ["models.0.parameters.weight: is missing"]),
        ("merge_method: slerp\nmodels: [{model: a}, {model: b}]", ["base_model: is missing; slerp needs one", "parameters.t: is missing"]),
        ("merge_method: slerp\nbase_model: a\nmodels: [{model: b}, {model: c}]\nparameters: {t: 1}",
         ["models: slerp merges exactly 1 beside the base, found 2"]),
        ("merge_method: model_stock\nbase_model: a\nmodels: [{model: a}, {model: c}]",
         ["models: model_stock merges at least 2 beside the base, found 1"]),
        ("merge_method: outlier\nbase_model: a\nmodels: [{model: a}]", ["models: outlier merges at least 1 beside the base, found 0"]),
        ("merge_method: ties\nslices: [{sources: []}]", ["slices: layers are not cut out and stacked; list whole models under 'models'"]),
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\nmodules: {}",
         ["modules: modules are not merged one by one; list whole models under 'models'"]),
        ("merge_method: linear\nchat_template: auto",
         ["chat_template: is not read; the base's is carried over", "models: is missing"]),
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\ntokenizer: {source: base, tokens: {}}",
         ["tokenizer: expected 'union' or 'base'"]),
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\ntokenizer: base\n"
         "tokenizer_source: union",
         ["tokenizer: says something else than tokenizer_source; give one of them"]),
    ],
)  # fmt: skip
def test_the_frame(tmp_path, text, said):
    assert faults(tmp_path, text) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("yes", "weight: expected a number, found True"),
        ("~", "weight: expected a number, found None"),
        ("'1'", "weight: expected a number, found '1', which is text to YAML; write 1.0"),
        (".nan", "weight: expected a number, found nan"),
        (".inf", "weight: expected a number of at most 1e+18, found inf"),
        ("9" * 30, f"weight: expected a number of at most 1e+18, found {'9' * 30}"),
        ("1e-3", "weight: expected a number, found '1e-3', which is text to YAML; write 0.001"),
        ("1e-9", "weight: expected a number, found '1e-9', which is text to YAML; write 1.0e-09"),
        ("[]", "weight: is an empty list"),
        ("[1, a]", "weight.1: expected a number, found 'a'"),
        ("[[1]]", "weight.0: expected a number, found [1]"),
        (
            "{filter: a, values: 1}",
            ["weight.0.values: there is no such key; did you mean 'value'?", "weight.0.value: is missing"],
        ),
        (
            "[{value: {a: 1}}]",
            "weight.0.value: expected a value, a list of numbers, or a list of {filter, value}",
        ),
        ("[{value: [{value: 1}]}]", "weight.0.value.0: expected a number, found {'value': 1}"),
        ("[{filter: 3, value: 1}]", "weight.0.filter: expected a part of a tensor's name, found 3"),
        ("[{filter: '', value: 1}]", "weight.0.filter: expected a part of a tensor's name, found ''"),
        ("[{filter: a}]", "weight.0.value: is missing"),
        ('[{filter: "\\ud800", value: 1}]', "weight.0.filter: is not valid Unicode"),
        (
            "[{value: 1}, {filters: a, value: 1}]",
            "weight.1.filters: there is no such key; did you mean 'filter'?",
        ),
    ],
)
def test_values(tmp_path, value, said):
    text = f"merge_method: linear\nmodels: [{{model: a}}]\nparameters: {{weight: {value}}}\n"
    said = [said] if isinstance(said, str) else said
    assert faults(tmp_path, text) == [f"parameters.{one}" for one in said]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("{density: -0.1}", "density: expected a number from 0 to 1, found -0.1"),
        ("{density: [0.5, 1.5]}", "density.1: expected a number from 0 to 1, found 1.5"),
        ("{normalize: [1, 0]}", "normalize: only numbers change from layer to layer, normalize does not"),
        ("{normalize: 'true'}", "normalize: expected true or false, found 'true'"),
        ("{int8_mask: 1}", "int8_mask: there is no such parameter of ties"),
        ("{rescale: true}", "rescale: ties does not rescale what it keeps; leave it out"),
        ("{band: [0, 1]}", "band: there is no such parameter of ties"),
        ("{filter_wise: 1}", "filter_wise: there is no such parameter of ties"),
        ("{lambda_: 1}", "lambda_: there is no such parameter of ties; did you mean 'lambda'?"),
    ],
)
def test_parameters_of_a_method(tmp_path, parameters, said):
    assert faults(tmp_path, ties(parameters=parameters)) == [f"parameters.{said}"]


@pytest.mark.parametrize("parameters", ["{gamma: 0.1}", "{rescale: false}", "{t: 0.5}"])
def test_what_only_other_methods_have_changes_nothing_and_is_said(tmp_path, parameters):
    name = parameters[1:].split(":")[0]
    recipe = loaded(tmp_path, ties(parameters=parameters))
    assert recipe.notes == (f"parameters.{name}: changes nothing; ties has no such parameter",)
    assert name not in recipe.shared


def test_what_changes_nothing_here_may_stand_anywhere(tmp_path):
    recipe = loaded(tmp_path, ties("  - {model: a, parameters: {weight: 1, int8_mask: true}}\n"))
    assert recipe.notes == ("models.0.parameters.int8_mask: changes nothing here; masks take no memory",)
    recipe = loaded(tmp_path, ties(parameters="{filter_wise: true}"))
    assert recipe.notes == ("parameters.filter_wise: changes nothing; ties has no such parameter",)


def test_model_stock_looks_at_whole_tensors(tmp_path):
    stock = "merge_method: model_stock\nbase_model: a\nmodels: [{{model: b}}, {{model: c}}]\nparameters: {{filter_wise: {}}}"
    assert loaded(tmp_path, stock.format("false")).notes == (
        "parameters.filter_wise: changes nothing; model_stock looks at whole tensors",
    )
    assert faults(tmp_path, stock.format("true")) == [
        "parameters.filter_wise: model_stock looks at whole tensors, not at their rows; leave it out"
    ]


def test_a_configuration_that_is_no_file_is_unicode_too():
    data = {
        "merge_method": "linear",
        "models": [{"model": "a", "parameters": {"weight": {"filter": "\udc80", "value": 1}}}],
    }
    with pytest.raises(ConfigError, match=r"models\.0\.parameters\.weight\.filter: is not valid Unicode"):
        parse_merge(data, SCHEMAS, "x")


def test_a_seed_is_a_whole_number(tmp_path):
    text = "merge_method: dare_ties\nbase_model: b\nmodels: [{{model: a}}]\nparameters: {{weight: 1, seed: {}}}\n"
    assert loaded(tmp_path, text.format(7)).resolve(WEIGHT, 0, 1)["seed"] == 7
    assert faults(tmp_path, text.format(1.5)) == ["parameters.seed: expected a whole number, found 1.5"]


def test_a_long_value_is_cut(tmp_path):
    text = (
        "merge_method: linear\nmodels: [{model: a}]\nparameters: {weight: '"
        + "x" * 1000
        + "', "
        + "y" * 1000
        + ": 1}\n"
    )
    assert max(map(len, faults(tmp_path, text))) < 400


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["filter", "value", "model", "parameters", "weight", "t", "x"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)
KEYS = [
    "merge_method",
    "models",
    "base_model",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "slices",
    "y",
]


@given(st.dictionaries(st.sampled_from(KEYS), PLAIN), st.sampled_from([None, *SCHEMAS]), st.booleans())
def test_whatever_it_says_it_is_read_or_refused(data, method, with_models):
    if method is not None:
        data["merge_method"] = method
    if with_models:
        data["models"] = [{"model": "a", "parameters": data.get("parameters")}, {"model": "b"}]
    try:
        recipe = parse_merge(data, SCHEMAS, "x.yaml")
    except ConfigError as error:
        assert error.file == "x.yaml"
        assert error.message
    else:
        assert recipe.schema is SCHEMAS[method]
