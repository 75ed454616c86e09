"""Small digits by a convolutional network, served from raw pixels (`lepton up` first)."""

from lepton_ai import CNN, Cluster, EarlyStopping
from lepton_ai.datasets import load_digits
from lepton_ai.metrics import accuracy
from lepton_ai.preprocessing import Augmentation, MinMaxScaler


def train() -> CNN:
    images, labels = load_digits("train")
    model = CNN(
        input_shape=(8, 8, 1),
        layers=[
            ("conv", {"filters": 32, "padding": "same", "activation": "relu"}),
            ("batch_norm"),
            ("pool"),
            ("conv", {"filters": 64, "padding": "same", "activation": "relu"}),
            ("pool"),
            ("flatten"),
            ("dropout", {"rate": 0.3}),
            ("dense", {"units": 10, "activation": "softmax"}),
        ],
        preprocessing=[MinMaxScaler(), Augmentation(rotate=10, scale=0.1)],
    )
    model.compile(
        ("adam", {"learning_rate": 0.003}), "sparse_categorical_crossentropy", ["accuracy"]
    )
    model.fit(
        images,
        labels,
        epochs=15,
        validation_split=0.1,
        seed=1,
        callbacks=[EarlyStopping("val_accuracy", patience=6)],
    )
    return model


def main() -> float:
    model = train()
    images, labels = load_digits("test")
    with Cluster() as cluster:
        endpoint = cluster.deploy(model, name="digits")
        share = accuracy(labels, endpoint.predict(images))
    print(f"the endpoint got {share:.1%} of {len(labels)} unseen digits right")
    return share


if __name__ == "__main__":
    main()
