"""Spam by logistic regression and by a GRU, served from raw text (`lepton up` first)."""

from lepton_ai import RNN, Cluster
from lepton_ai.datasets import load_sms_spam
from lepton_ai.metrics import f1
from lepton_ai.preprocessing import Tokenizer

STEPS = 40
WORDS = 8000


def logistic_regression() -> RNN:
    """One weight a word: the logarithm of the odds is linear in how often each occurs."""
    return RNN(
        input_shape=(STEPS,),
        layers=[
            ("embedding", {"vocabulary_size": WORDS, "units": 1}),
            ("global_pool", {"mode": "average"}),
            ("dense", {"units": 1, "activation": "sigmoid"}),
        ],
        preprocessing=[Tokenizer(vocabulary_size=WORDS, steps=STEPS)],
    )


def gru() -> RNN:
    """Words in their order, read both ways."""
    return RNN(
        input_shape=(STEPS,),
        layers=[
            ("embedding", {"vocabulary_size": WORDS, "units": 64}),
            ("dropout", {"rate": 0.3}),
            ("gru", {"units": 32, "bidirectional": True, "output": "max"}),
            ("dropout", {"rate": 0.3}),
            ("dense", {"units": 1, "activation": "sigmoid"}),
        ],
        preprocessing=[Tokenizer(vocabulary_size=WORDS, steps=STEPS)],
    )


def train(model: RNN, learning_rate: float, epochs: int) -> float:
    texts, labels = load_sms_spam("train")
    model.compile(("adam", {"learning_rate": learning_rate}), "binary_crossentropy", ["f1"])
    model.fit(texts, labels, epochs=epochs, batch_size=64, seed=0)
    test_texts, test_labels = load_sms_spam("test")
    return f1(test_labels, model.predict(test_texts))


def main() -> tuple[float, float]:
    scores = (
        train(logistic_regression(), learning_rate=0.05, epochs=15),
        train(model := gru(), learning_rate=0.01, epochs=6),
    )
    print(f"F1 on a held-out fifth: logistic regression {scores[0]:.3f}, GRU {scores[1]:.3f}")
    texts = ["WINNER!! Claim your prize now", "Are you home for dinner?"]
    with Cluster() as cluster:
        answers = cluster.deploy(model, name="spam").predict(texts)
    for text, probability in zip(texts, answers[:, 0], strict=True):
        print(f"{probability:.2f}  {text}")
    return scores


if __name__ == "__main__":
    main()
