"""The objects of a Keras configuration that compute and do nothing else.

An allow-list, readable without Keras.

A Keras file names classes and functions, and loading it calls them.  What stands here takes numbers, texts
and other objects of these lists, and reads, writes, imports and calls nothing that the file names.  The names
are those of the packages keras (3) and tf_keras (2); a test holds the lists against the installed ones.
"""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODELS = frozenset({"Functional", "Model", "Sequential"})

# keras.layers, and tf_keras/src/layers/serialization.py: populate_deserializable_objects
LAYERS = _names("""
    AbstractRNNCell Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AddLoss
    AddMetric AdditiveAttention AlphaDropout Attention AugMix AutoContrast Average AveragePooling1D
    AveragePooling2D AveragePooling3D AvgPool1D AvgPool2D AvgPool3D BaseRandomLayer BatchNormalization
    BatchNormalizationBase BatchNormalizationV1 BatchNormalizationV2 Bidirectional CategoryEncoding
    CenterCrop Concatenate ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D
    Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Convolution1D
    Convolution1DTranspose Convolution2D Convolution2DTranspose Convolution3D Convolution3DTranspose
    Cropping1D Cropping2D Cropping3D CuDNNGRU CuDNNLSTM CutMix Dense DepthwiseConv1D DepthwiseConv2D
    DeviceWrapper Discretization Dot Dropout ELU EinsumDense Embedding Equalization Flatten GRU GRUCell
    GRUCellV1 GRUCellV2 GRUV1 GRUV2 GaussianDropout GaussianNoise GlobalAveragePooling1D
    GlobalAveragePooling2D GlobalAveragePooling3D GlobalAvgPool1D GlobalAvgPool2D GlobalAvgPool3D
    GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D GlobalMaxPooling1D GlobalMaxPooling2D
    GlobalMaxPooling3D GroupNormalization GroupQueryAttention HashedCrossing Hashing Identity InputLayer
    IntegerLookup LSTM LSTMCell LSTMCellV1 LSTMCellV2 LSTMV1 LSTMV2 Layer LayerNormalization LeakyReLU
    LocallyConnected1D LocallyConnected2D Masking MaxNumBoundingBoxes MaxPool1D MaxPool2D MaxPool3D
    MaxPooling1D MaxPooling2D MaxPooling3D Maximum MelSpectrogram Minimum MixUp MultiHeadAttention
    Multiply Normalization PReLU Permute Pipeline RMSNormalization RNN RandAugment RandomBrightness
    RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop RandomElasticTransform
    RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHeight RandomHue RandomInvert
    RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear
    RandomTranslation RandomWidth RandomZoom ReLU RepeatVector Rescaling Reshape Resizing
    ReversibleEmbedding STFTSpectrogram SeparableConv1D SeparableConv2D SeparableConvolution1D
    SeparableConvolution2D SimpleRNN SimpleRNNCell SlicingOpLambda Softmax Solarization SpatialDropout1D
    SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells StringLookup Subtract
    SyncBatchNormalization TFOpLambda TensorFlowOpLayer TextVectorization ThresholdedReLU
    TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D Wrapper ZeroPadding1D
    ZeroPadding2D ZeroPadding3D
""")

# layers of keras.applications that are no layers of keras.layers
APPLICATION_LAYERS = frozenset({"CustomScaleLayer", "LayerScale", "StochasticDepth"})

# The layers of both packages that are not allowed, and what they do.
REFUSED_LAYERS = {
    "Lambda": "holds a Python function",
    "DropoutWrapper": "holds a Python function",
    "ResidualWrapper": "holds a Python function",
    "_RNNCellWrapper": "is a base class",
    "FlaxLayer": "holds Python functions",
    "JaxLayer": "holds Python functions",
    "TorchModuleWrapper": "unpickles a PyTorch module",
    "TFSMLayer": "loads a SavedModel from a path",
    "ClassMethod": "calls a method that it names",
    "InstanceMethod": "calls a method that it names",
    "InstanceProperty": "reads an attribute that it names",
    "DenseFeatures": "has feature columns, which read files and call functions",
    "SequenceFeatures": "has feature columns, which read files and call functions",
    "LinearModel": "is a model of its own kind, whose parts are not in these lists",
    "WideDeepModel": "is a model of its own kind, whose parts are not in these lists",
}

# Forms of values that hold more than a value.
REFUSED_VALUES = {
    "__lambda__": "holds a Python function",
    "__typespec__": "makes a type that it names",
    "TypeSpec": "makes a type that it names",
    "CompositeTensor": "makes a type that it names",
}

# Names among the layers of both packages that are no layers: functions, and a description of inputs.
NO_LAYERS = _names("Input InputSpec add average concatenate dot maximum minimum multiply subtract")

# keras/src/ops: the operations that a functional model of Keras 3 records
OPERATIONS = _names("""
    Abs Absolute AdaptiveAveragePool AdaptiveMaxPool Add AffineTransform All AllClose Amax Amin Angle
    Any Append Arange Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh Argmax Argmin Argpartition
    Argsort Array ArraySplit Average AveragePool BatchNorm BinaryCrossentropy Bincount BitwiseAnd
    BitwiseInvert BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor BroadcastTo CDist
    CTCDecode CTCLoss Cast CategoricalCrossentropy Cbrt Ceil Celu Cholesky CholeskyInverse Clip
    Concatenate Conj Conjugate Conv ConvTranspose ConvertToTensor Copy Corrcoef Correlate Cos Cosh
    CountNonzero CropImages Cross Cumprod Cumsum Deg2rad DepthToSpace DepthwiseConv Det Diag Diagflat
    Diagonal Diff Digitize Divide DivideNoNan Dot DotProductAttention Dsplit Dstack Eig Eigh Einsum
    ElasticTransform Elu EmptyLike Equal Erf Erfc Erfinv Exp Exp2 ExpandDims Expm1 ExtractPatches
    ExtractSequences FFT FFT2 Fabs Flip Fliplr Flipud Floor FloorDivide Fmax Fmin Fmod Fold Full
    FullLike GaussianBlur Gcd Gelu Geomspace GetItem Glu Greater GreaterEqual HSVToRGB HardShrink
    HardSigmoid HardSilu HardTanh Heaviside Histogram Hsplit Hstack Hypot I0 IFFT2 IRFFT ISTFT Imag
    InTopK Inner Inv IsIn Isclose Isfinite Isinf Isnan Isneginf Isposinf Isreal Kron LayerNorm Lcm Ldexp
    LeakyRelu LeftShift Less LessEqual Linspace Log Log10 Log1p Log2 LogSigmoid LogSoftmax Logaddexp
    Logaddexp2 Logdet LogicalAnd LogicalNot LogicalOr LogicalXor Logspace Logsumexp Lstsq LuFactor
    MapCoordinates Matmul MatrixRank Max MaxPool Maximum Mean Median Meshgrid Min Minimum Mod Moments
    Moveaxis MultiHot Multiply NanToNum Nanargmax Nanargmin Nancumprod Nancumsum Nanmax Nanmean
    Nanmedian Nanmin Nanpercentile Nanprod Nanquantile Nanstd Nansum Nanvar Ndim Negative Nextafter
    Nonzero Norm Normalize NotEqual OneHot OnesLike Outer PSNR Pad PadImages Percentile
    PerspectiveTransform Pinv Polar Power Prod Ptp Qr Quantile RFFT RGBToGrayscale RGBToHSV RMSNorm
    Rad2deg Ravel Real Rearrange Reciprocal Relu Relu6 Repeat Reshape Resize RightShift Roll Rot90 Round
    Rsqrt SSIM STFT SVD SaturateCast ScaleAndTranslate Scatter ScatterUpdate SearchSorted SegmentMax
    SegmentMin SegmentProd SegmentReduction SegmentSum Select Selu SeparableConv Sigmoid Sign Signbit
    Silu Sin Sinc Sinh Size Slice SliceUpdate Slogdet SobelEdges SoftShrink Softmax Softplus Softsign
    Solve SolveTriangular Sort SpaceToDepth SparseCategoricalCrossentropy SparsePlus SparseSigmoid
    Sparsemax Split Sqrt Square Squareplus Squeeze Stack Std StopGradient Subtract Sum Swapaxes Take
    TakeAlongAxis Tan Tanh TanhShrink Tensordot Threshold Tile TopK Trace Transpose Trapezoid Tril Triu
    TrueDivide Trunc Unfold Unique UnravelIndex Unstack Vander Var Vdot View ViewAsComplex ViewAsReal
    Vsplit Vstack Where ZerosLike
""")

# Operations that take functions.
REFUSED_OPERATIONS = _names(
    "AssociativeScan Cond ForiLoop Function JVP Map Scan Switch VectorizedMap WhileLoop"
)

ACTIVATIONS = _names("""
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu
    linear log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus
    softsign sparse_plus sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink threshold
""")

# keras.initializers and tf_keras.initializers, with the names that a text may have in their place
INITIALIZERS = _names("""
    Constant ConstantV2 GlorotNormal GlorotNormalV2 GlorotUniform GlorotUniformV2 HeNormal HeNormalV2
    HeUniform HeUniformV2 Identity IdentityInitializer IdentityV2 LecunNormal LecunNormalV2 LecunUniform
    LecunUniformV2 Ones OnesV2 Orthogonal OrthogonalInitializer OrthogonalV2 RandomNormal RandomNormalV2
    RandomUniform RandomUniformV2 STFT STFTInitializer TruncatedNormal TruncatedNormalV2 VarianceScaling
    VarianceScalingV2 Zeros ZerosV2 constant glorot_normal glorot_normalV2 glorot_uniform
    glorot_uniformV2 he_normal he_normalV2 he_uniform he_uniformV2 identity lecun_normal lecun_normalV2
    lecun_uniform lecun_uniformV2 normal one ones orthogonal random_normal random_uniform stft
    truncated_normal uniform variance_scaling zero zeros
""")

REGULARIZERS = _names("L1 L1L2 L2 OrthogonalRegularizer l1 l1_l2 l1l2 l2 orthogonal_regularizer")

CONSTRAINTS = _names("""
    MaxNorm MinMaxNorm NonNeg RadialConstraint UnitNorm max_norm maxnorm min_max_norm non_neg nonneg
    radial_constraint unit_norm unitnorm
""")

# Policies of dtypes (keras.dtype_policies, tf_keras.mixed_precision), quantizers, the state of random layers.
SETTINGS = _names("""
    AWQDTypePolicy DTypePolicy DTypePolicyMap FloatDTypePolicy GPTQDTypePolicy Int4DTypePolicy Policy
    PolicyV1 QuantizedDTypePolicy QuantizedFloat8DTypePolicy AbsMaxQuantizer Float8QuantizationConfig
    Int4QuantizationConfig Int8QuantizationConfig QuantizationConfig SeedGenerator
""")

# Values that JSON has no form for (serialization_lib.py and json_utils.py of both packages).
VALUES = _names("""
    __bytes__ __ellipsis__ __keras_tensor__ __numpy__ __slice__ __tensor__ __tuple__ TensorShape
""")

# What a key of a configuration may name by a text: the key's last word and the names.
NAMED = {
    "activation": ACTIVATIONS | {"ELU", "LeakyReLU", "PReLU", "ReLU", "Softmax", "ThresholdedReLU"},
    "initializer": INITIALIZERS,
    "regularizer": REGULARIZERS,
    "constraint": CONSTRAINTS,
}

CLASSES = (
    MODELS
    | LAYERS
    | APPLICATION_LAYERS
    | OPERATIONS
    | INITIALIZERS
    | REGULARIZERS
    | CONSTRAINTS
    | SETTINGS
    | VALUES
)
