"""Right Keras layers, models and losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from .case import Case, floats, model


def stack(*made: Callable[[], Any], shape: tuple[int, ...], batch: int = 2) -> Callable[[], tuple[Any, Any]]:
    """A Sequential model and a batch for it, both made when they are asked for."""

    def make() -> tuple[Any, Any]:
        keras.utils.set_random_seed(3)
        built = keras.Sequential([keras.Input(shape), *(one() for one in made)], name="stack")
        return built, floats(batch, *shape)

    return make


def alone(made: Callable[[], Any], *shape: int) -> Callable[[], tuple[Any, Any]]:
    """A single layer, unbuilt, and a batch for it."""

    def make() -> tuple[Any, Any]:
        keras.utils.set_random_seed(3)
        return made(), floats(*shape)

    return make


def with_targets(make: Callable[[], tuple[Any, Any]], *targets: Any) -> Callable[[], tuple[Any, ...]]:
    return lambda: (*make(), *targets)


def tanh_dense() -> Any:
    return layers.Dense(3, activation="tanh")


def stateful_gru() -> tuple[Any, Any]:
    keras.utils.set_random_seed(3)
    layer = layers.GRU(2, stateful=True)
    layer(floats(2, 3, 2, seed=5))
    return layer, floats(2, 3, 2)


LAYERS = (
    model("Dense", alone(lambda: layers.Dense(3), 2, 4)),
    model("Dense of sigmoid", alone(lambda: layers.Dense(3, activation="sigmoid"), 2, 4)),
    model("Dense of softmax", alone(lambda: layers.Dense(3, activation="softmax"), 2, 4)),
    model("Dense of gelu", alone(lambda: layers.Dense(3, activation="gelu"), 2, 4)),
    model("Dense of relu", alone(lambda: layers.Dense(6, activation="relu"), 3, 4)),
    model("Dense in float64", alone(lambda: layers.Dense(3, activation="tanh", dtype="float64"), 2, 4)),
    model("Dense without bias", alone(lambda: layers.Dense(3, use_bias=False), 2, 3, 4)),
    model("EinsumDense", alone(lambda: layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"), 2, 3, 4)),
    model("Conv1D, causal and dilated", alone(lambda: layers.Conv1D(2, 2, padding="causal", dilation_rate=2), 2, 5, 2)),
    model("Conv1D, strided", alone(lambda: layers.Conv1D(3, 3, strides=2), 2, 7, 2)),
    model("Conv2D, same", alone(lambda: layers.Conv2D(3, 3, padding="same", activation="relu"), 2, 5, 5, 2)),
    model("Conv2D, strided", alone(lambda: layers.Conv2D(3, 3, strides=2), 2, 6, 6, 2)),
    model("Conv2D, dilated", alone(lambda: layers.Conv2D(2, 2, dilation_rate=2), 1, 5, 5, 2)),
    model("Conv2D in groups", alone(lambda: layers.Conv2D(4, 2, groups=2), 1, 4, 4, 4)),
    model("Conv3D", alone(lambda: layers.Conv3D(2, 2), 1, 3, 3, 3, 2)),
    model("DepthwiseConv1D", alone(lambda: layers.DepthwiseConv1D(3), 2, 6, 2)),
    model("DepthwiseConv2D", alone(lambda: layers.DepthwiseConv2D(2, depth_multiplier=2), 1, 4, 4, 2)),
    model("SeparableConv1D", alone(lambda: layers.SeparableConv1D(3, 2), 2, 5, 2)),
    model("SeparableConv2D", alone(lambda: layers.SeparableConv2D(3, 2), 1, 4, 4, 2)),
    model("Conv1DTranspose", alone(lambda: layers.Conv1DTranspose(2, 3, strides=2), 2, 4, 2)),
    model("Conv2DTranspose", alone(lambda: layers.Conv2DTranspose(2, 3, strides=2, padding="same"), 1, 3, 3, 2)),
    model("Conv3DTranspose", alone(lambda: layers.Conv3DTranspose(1, 2), 1, 2, 2, 2, 2)),
    model("LayerNormalization", alone(layers.LayerNormalization, 2, 5)),
    model("BatchNormalization", alone(layers.BatchNormalization, 4, 3)),
    model("BatchNormalization in training", alone(layers.BatchNormalization, 6, 3), training=True),
    model("BatchNormalization of images in training", alone(layers.BatchNormalization, 2, 3, 3, 2), training=True),
    model("GroupNormalization", alone(lambda: layers.GroupNormalization(2), 2, 3, 4)),
    model("RMSNormalization", alone(layers.RMSNormalization, 2, 5)),
    model("PReLU", alone(layers.PReLU, 3, 4)),
    model("Embedding", lambda: (layers.Embedding(5, 3), np.array([[1, 2, 1], [4, 0, 1]]))),
    model("SimpleRNN", alone(lambda: layers.SimpleRNN(3), 2, 4, 2)),
    model("LSTM", alone(lambda: layers.LSTM(3, return_sequences=True), 2, 4, 2)),
    model("LSTM, unrolled and backwards", alone(lambda: layers.LSTM(2, unroll=True, go_backwards=True), 2, 3, 2)),
    model("LSTM with dropout in training", alone(lambda: layers.LSTM(3, dropout=0.4, recurrent_dropout=0.3), 2, 3, 2),
          training=True),
    model("GRU", alone(lambda: layers.GRU(3), 2, 4, 2)),
    model("GRU of one bias", alone(lambda: layers.GRU(2, reset_after=False), 2, 3, 2)),
    model("GRU that keeps its state", stateful_gru),
    model("Bidirectional LSTM", alone(lambda: layers.Bidirectional(layers.LSTM(2)), 2, 3, 2)),
    model("ConvLSTM2D", alone(lambda: layers.ConvLSTM2D(2, 2), 1, 2, 3, 3, 1), slow=True),
    model("TimeDistributed", alone(lambda: layers.TimeDistributed(layers.Dense(2)), 2, 3, 4)),
    model("MultiHeadAttention",
          lambda: (layers.MultiHeadAttention(2, 2), [floats(2, 3, 4), floats(2, 5, 4, seed=1)])),
    model("MultiHeadAttention, causal", lambda: (SelfAttention(), floats(1, 4, 4))),
    model("MultiHeadAttention with dropout in training",
          lambda: (layers.MultiHeadAttention(2, 2, dropout=0.5), [floats(1, 3, 4), floats(1, 3, 4)]), training=True),
    model("GroupQueryAttention",
          lambda: (layers.GroupQueryAttention(2, 4, 2), [floats(1, 3, 4), floats(1, 3, 4, seed=1)])),
    model("AdditiveAttention", lambda: (layers.AdditiveAttention(), [floats(1, 3, 4), floats(1, 5, 4, seed=1)])),
    model("SpectralNormalization", alone(lambda: layers.SpectralNormalization(layers.Dense(3)), 2, 4)),
    model("ReversibleEmbedding, tied", lambda: (Tied(), np.array([[1, 3, 0]]))),
)  # fmt: skip


class SelfAttention(layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.inner = layers.MultiHeadAttention(2, 2)

    def build(self, shape: Any) -> None:
        self.inner.build(shape, shape)

    def call(self, x: Any) -> Any:
        return self.inner(x, x, use_causal_mask=True)


class Tied(keras.Model):
    """One matrix to go in and, transposed, to come out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = layers.Embedding(5, 3, name="embed"), layers.Dense(3, activation="tanh", name="mix")

    def call(self, ids: Any) -> Any:
        return tf.matmul(self.mix(self.embed(ids)), tf.convert_to_tensor(self.embed.embeddings), transpose_b=True)


# ---------------------------------------------------------------------------------------------- whole models


def conv() -> Any:
    return layers.Conv2D(3, 3, padding="same", activation="relu")


def pooled(pool: Callable[[], Any], rank: int = 2) -> Callable[[], tuple[Any, Any]]:
    kind = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    return stack(lambda: kind(2, 2, padding="same"), pool, layers.Flatten, lambda: layers.Dense(2),
                 shape=(4,) * rank + (1,))  # fmt: skip


def transformer() -> tuple[Any, Any]:
    """A block with attention and a feed-forward part, both residual, over embedded tokens with positions."""
    keras.utils.set_random_seed(3)
    ids = keras.Input((4,), dtype="int32")
    x = layers.Embedding(7, 4, name="tokens")(ids)
    x = x + layers.Embedding(4, 4, name="positions")(keras.ops.arange(4))
    attended = layers.MultiHeadAttention(2, 2, dropout=0.1, name="attention")(x, x, use_causal_mask=True)
    x = layers.LayerNormalization(name="norm_1")(x + layers.Dropout(0.1)(attended))
    fed = layers.Dense(4, name="down")(layers.Dense(8, activation="gelu", name="up")(x))
    x = layers.LayerNormalization(name="norm_2")(x + fed)
    return keras.Model(ids, layers.Dense(7, name="logits")(x), name="transformer"), np.array([[1, 5, 2, 2]])


def u_net() -> tuple[Any, Any]:
    keras.utils.set_random_seed(3)
    x = image = keras.Input((8, 8, 1))
    skips = []
    for width in (2, 3):
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = layers.BatchNormalization()(x)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    for width, skip in zip((3, 2), reversed(skips), strict=True):
        x = layers.Conv2DTranspose(width, 2, strides=2)(x)
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(layers.Concatenate()([x, skip]))
    return keras.Model(image, layers.Conv2D(1, 1, activation="sigmoid")(x), name="u_net"), floats(1, 8, 8, 1)


def residual() -> tuple[Any, Any]:
    keras.utils.set_random_seed(3)
    image = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    shortcut = layers.Conv2D(4, 1, strides=2)(x)
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, strides=2, padding="same")(x))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([x, shortcut])))
    return keras.Model(image, layers.Dense(3)(x), name="residual"), floats(2, 6, 6, 2)


def shared() -> tuple[Any, Any]:
    keras.utils.set_random_seed(3)
    a, b, dense = keras.Input((3,)), keras.Input((3,)), layers.Dense(2, activation="tanh", name="shared")
    return keras.Model([a, b], layers.Dot(-1)([dense(a), dense(b)])), [floats(2, 3), floats(2, 3, seed=1)]


def nested() -> tuple[Any, Any]:
    keras.utils.set_random_seed(3)
    inner = keras.Sequential([tanh_dense(), layers.Dense(2)], name="inner")
    return keras.Sequential([keras.Input((4,)), inner, keras.Sequential([tanh_dense()], name="last")]), floats(2, 4)


class Variational(keras.Model):
    """An autoencoder with a sampled code and its divergence as an added loss."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = layers.Dense(4, name="encode"), layers.Dense(5, name="decode")
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, x: Any) -> Any:
        mean, spread = tf.split(self.encode(x), 2, axis=-1)
        code = mean + tf.exp(spread) * keras.random.normal(tf.shape(mean), seed=self.seeds)
        self.add_loss(tf.reduce_mean(tf.exp(2 * spread) + mean**2 - 2 * spread))
        return self.decode(code)


class Highway(layers.Layer):
    """A subclassed layer that decides in a loop of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.way = layers.Dense(3, activation="sigmoid"), layers.Dense(3, activation="tanh")

    def build(self, shape: Any) -> None:
        self.gate.build(shape)
        self.way.build(shape)

    def call(self, x: Any) -> Any:
        def body(i: Any, state: Any) -> Any:
            gate = self.gate(state)
            return i + 1, gate * self.way(state) + (1 - gate) * state

        return tf.while_loop(lambda i, _: i < 3, body, [0, x])[1]


class Branching(layers.Layer):
    """A layer with Python conditions on tensors, as AutoGraph reads them."""

    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(shape[-1],), name="w", initializer="ones")

    def call(self, x: Any) -> Any:
        return tf.cond(tf.reduce_sum(x) > 0, lambda: x * self.w, lambda: tf.sin(x * self.w))


class FunctionInside(layers.Layer):
    """A layer whose call is a tf.function."""

    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(shape[-1],), name="w", initializer="ones")

    @tf.function
    def call(self, x: Any) -> Any:
        if tf.reduce_sum(x) > 0:
            return tf.tanh(x * self.w)
        return x * self.w


class Scanned(layers.Layer):
    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(shape[-1],), name="w")

    def call(self, x: Any) -> Any:
        def step(carry: Any, row: Any) -> tuple[Any, Any]:
            carry = keras.ops.tanh(carry * self.w + row)
            return carry, carry

        return keras.ops.scan(step, keras.ops.zeros_like(x[0]), x)[1]


def frozen_below() -> tuple[Any, Any]:
    made, x = stack(tanh_dense, layers.BatchNormalization, tanh_dense, shape=(4,))()
    made.layers[0].trainable = made.layers[1].trainable = False
    return made, x


def policy(name: str, make: Callable[[], tuple[Any, ...]]) -> Callable[[], tuple[Any, ...]]:
    """The same, built under a dtype policy."""

    def made() -> tuple[Any, ...]:
        before = keras.mixed_precision.dtype_policy()
        keras.mixed_precision.set_dtype_policy(name)
        try:
            return make()
        finally:
            keras.mixed_precision.set_dtype_policy(before)

    return made


def perceptron() -> tuple[Any, Any]:
    return stack(lambda: layers.Dense(8, activation="relu"), tanh_dense, shape=(4,), batch=4)()


def small_cnn() -> tuple[Any, Any]:
    return stack(conv, layers.MaxPooling2D, layers.BatchNormalization, layers.Flatten, lambda: layers.Dense(3),
                 shape=(6, 6, 1))()  # fmt: skip


def regularized() -> tuple[Any, Any]:
    return stack(
        lambda: layers.Dense(3, kernel_regularizer="l2", bias_regularizer="l1", bias_initializer="ones"),
        lambda: layers.Dense(4, activation="tanh", activity_regularizer="l2"),
        lambda: layers.Dense(4, kernel_regularizer=keras.regularizers.OrthogonalRegularizer()),
        shape=(3,),
    )()


def masked() -> tuple[Any, Any]:
    made = keras.Sequential([layers.Embedding(5, 3, mask_zero=True), layers.LSTM(2), layers.Dense(2)])
    return made, np.array([[1, 2, 0], [3, 0, 0]])


NARROW = ("mixed_bfloat16", "mixed_float16")
MODELS = (
    model("small perceptron", perceptron),
    model("max pooling, 1-D", pooled(layers.MaxPooling1D, 1)),
    model("max pooling, 2-D", pooled(layers.MaxPooling2D)),
    model("max pooling, 3-D", pooled(layers.MaxPooling3D, 3), slow=True),
    model("average pooling, 2-D", pooled(lambda: layers.AveragePooling2D(2, 1, "same"))),
    model("global max pooling", stack(conv, layers.GlobalMaxPooling2D, shape=(4, 4, 1))),
    model("global average pooling", stack(conv, layers.GlobalAveragePooling2D, shape=(4, 4, 1))),
    model("upsampling, bilinear",
          stack(conv, lambda: layers.UpSampling2D(2, interpolation="bilinear"), conv, shape=(3, 3, 1)), slow=True),
    model("padding and cropping", stack(lambda: layers.ZeroPadding2D(1), conv, lambda: layers.Cropping2D(1),
                                        shape=(3, 3, 1))),
    model("activations", stack(tanh_dense, layers.LeakyReLU, tanh_dense, layers.ELU, tanh_dense, layers.Softmax,
                               shape=(4,))),
    model("dropouts in training", stack(tanh_dense, lambda: layers.Dropout(0.5), lambda: layers.GaussianDropout(0.3),
                                        tanh_dense, lambda: layers.AlphaDropout(0.2), shape=(4,)), training=True),
    model("spatial dropout in training", stack(conv, lambda: layers.SpatialDropout2D(0.5), shape=(3, 3, 1)),
          training=True),
    model("noise in training", stack(tanh_dense, lambda: layers.GaussianNoise(0.5), tanh_dense, shape=(4,)),
          training=True),
    model("batch normalization twice, in training",
          stack(tanh_dense, layers.BatchNormalization, tanh_dense, layers.BatchNormalization, shape=(4,), batch=8),
          training=True),
    model("masked embedding into LSTM", masked),
    model("transformer", transformer),
    model("transformer in training", transformer, training=True, mode="directional"),
    model("U-Net", u_net),
    model("U-Net in training", u_net, training=True, slow=True),
    model("residual network", residual),
    model("residual network in training", residual, training=True),
    model("shared layer", shared),
    model("nested models", nested),
    model("variational autoencoder", lambda: (Variational(), floats(3, 5), floats(3, 5)), loss="mse"),
    model("layer with a loop", lambda: (Highway(), floats(2, 3))),
    model("layer with a condition", lambda: (Branching(), floats(2, 3))),
    model("layer with a function", lambda: (FunctionInside(), floats(2, 3))),
    model("layer with a scan", lambda: (Scanned(), floats(4, 3))),
    model("frozen layers", frozen_below),
    model("frozen layers in training", frozen_below, training=True),
    *(model(f"perceptron in {name}", policy(name, perceptron)) for name in NARROW),
    *(model(f"convolutions in {name}", policy(name, small_cnn)) for name in NARROW),
    *(model(f"transformer in {name}", policy(name, transformer), slow=True) for name in NARROW),
    *(model(f"LSTM in {name}", policy(name, alone(lambda: layers.LSTM(3), 2, 3, 2))) for name in NARROW),
    *(model(f"loss in {name}", policy(name, with_targets(perceptron, floats(4, 3))), loss="mse") for name in NARROW),
    model("bfloat16 throughout", policy("bfloat16", perceptron)),
    model("convolutions in training", small_cnn, training=True),
    model("larger perceptron",
          stack(lambda: layers.Dense(160, activation="relu"), lambda: layers.Dense(160, activation="relu"),
                lambda: layers.Dense(10), shape=(64,), batch=8), mode="directional"),
    model("deep network of relu", stack(*[lambda: layers.Dense(24, activation="relu")] * 12, shape=(24,), batch=4)),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------ losses

CLASSES, ONE_HOT = np.array([1, 0, 2, 1]), np.eye(3, dtype=np.float32)[[1, 0, 2, 1]]
LOGITS = with_targets(stack(tanh_dense, lambda: layers.Dense(3), shape=(4,), batch=4))
PROBABILITIES = with_targets(stack(tanh_dense, lambda: layers.Dense(3, activation="softmax"), shape=(4,), batch=4))
SIGMOIDS = with_targets(stack(tanh_dense, lambda: layers.Dense(3, activation="sigmoid"), shape=(4,), batch=4))


def of(make: Callable[[], tuple[Any, ...]], y: Any) -> Callable[[], tuple[Any, ...]]:
    return lambda: (*make(), y)


def compiled() -> tuple[Any, ...]:
    made, x = perceptron()
    made.compile("adam", loss="huber", metrics=["mae"], weighted_metrics=["mse"])
    return made, x, floats(4, 3)


LOSSES = (
    model("mean squared error", of(LOGITS, floats(4, 3)), loss="mse"),
    model("mean absolute error", of(LOGITS, floats(4, 3)), loss="mae"),
    model("Huber", of(LOGITS, floats(4, 3)), loss=keras.losses.Huber(0.5)),
    model("log cosh", of(LOGITS, floats(4, 3)), loss="log_cosh"),
    model("categorical cross-entropy", of(PROBABILITIES, ONE_HOT), loss="categorical_crossentropy"),
    model("sparse cross-entropy of logits", of(LOGITS, CLASSES),
          loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
    model("smoothed cross-entropy", of(PROBABILITIES, ONE_HOT),
          loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1)),
    model("binary cross-entropy", of(SIGMOIDS, ONE_HOT), loss="binary_crossentropy"),
    model("focal cross-entropy", of(SIGMOIDS, ONE_HOT), loss=keras.losses.BinaryFocalCrossentropy()),
    model("divergence of distributions", of(PROBABILITIES, ONE_HOT * 0.8 + 0.0667), loss="kl_divergence"),
    model("cosine similarity", of(LOGITS, floats(4, 3)), loss="cosine_similarity"),
    model("hinge", of(LOGITS, ONE_HOT), loss="categorical_hinge"),
    model("Poisson", of(SIGMOIDS, ONE_HOT), loss="poisson"),
    model("Dice", of(SIGMOIDS, ONE_HOT), loss="dice"),
    model("CTC loss", with_targets(stack(lambda: layers.Dense(4), shape=(6, 3)), np.array([[1, 2], [3, 3]])),
          loss="ctc"),
    model("compiled loss in training", compiled, training=True),
    model("sample weights", of(LOGITS, floats(4, 3)), loss="mse", sample_weight=np.array([0.0, 1.0, 2.0, 0.5])),
    model("regularizers", with_targets(regularized, floats(2, 4)), loss="mse"),
    model("second order", with_targets(stack(tanh_dense, lambda: layers.Dense(1), shape=(2,)), floats(2, 1)),
          loss="mse", order=2),
)  # fmt: skip

RIGHT: tuple[Case, ...] = LAYERS + MODELS + LOSSES
