# Read by lazy_loader: each name is imported when it is first used.
from .evaluation import Evaluation as Evaluation
from .evaluation import Predictions as Predictions
from .evaluation import evaluate as evaluate
from .evaluation import top_losses as top_losses
from .grad_cam import features as features
from .grad_cam import grad_cam as grad_cam
from .label_errors import label_errors as label_errors
from .predictor import Prediction as Prediction
from .predictor import Predictor as Predictor
from .trained import TrainedModel as TrainedModel
