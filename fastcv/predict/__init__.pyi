# Read by lazy_loader: each name is imported when it is first used.
from .evaluation import Evaluation as Evaluation
from .evaluation import Predictions as Predictions
from .evaluation import evaluate as evaluate
from .predictor import Prediction as Prediction
from .predictor import Predictor as Predictor
from .trained import TrainedModel as TrainedModel
