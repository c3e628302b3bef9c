# Written by python -m manual_grad.generate from losses/pointwise/sigmoid_focal_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp, expm1, log1p, pow
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value_gamma_0(inputs, options):
    x = inputs[0]
    t = inputs[1]
    positive = options[0]
    negative = options[1]
    v1 = positive.to(x.dtype) * t
    v2 = 1.0 - t
    v3 = negative.to(x.dtype) * v2
    v4 = v1 + v3
    v5 = x < 0.0
    v6 = tl.where(v5, t, v2)
    v7 = v6 == 0.0
    v8 = tl.abs(x)
    v9 = tl.abs(v8)
    v10 = v9 == float("inf")
    v11 = v7 & v10
    v12 = v6 * v8
    v13 = tl.where(v11, 0.0, v12)
    v14 = -v8
    v15 = exp(v14)
    v16 = log1p(v15)
    v17 = v13 + v16
    v18 = 1.0 * v17
    v19 = v4 * v18
    return v19


@triton.jit
def slopes_gamma_0(inputs, options):
    x = inputs[0]
    t = inputs[1]
    positive = options[0]
    negative = options[1]
    v1 = x < 0.0
    v2 = positive.to(x.dtype) * t
    v3 = 1.0 - t
    v4 = negative.to(x.dtype) * v3
    v5 = v2 + v4
    v6 = v5 * 1.0
    v7 = 2.0 * t
    v8 = 1.0 - v7
    v9 = -v8
    v10 = tl.where(v1, v9, v8)
    v11 = 0.0 * v10
    v12 = tl.abs(x)
    v13 = -v12
    v14 = exp(v13)
    v15 = v14 == 0.0
    v16 = tl.where(v1, t, v3)
    v17 = 1.0 + v14
    v18 = v16 * v17
    v19 = tl.where(v1, v3, t)
    v20 = v19 * v14
    v21 = v16 + v20
    v22 = v21 == 0.0
    v23 = tl.where(v22, 1.0, v21)
    v24 = v18 / v23
    v25 = v24 == 0.0
    v26 = tl.abs(v12)
    v27 = v26 == float("inf")
    v28 = v25 & v27
    v29 = v24 * v12
    v30 = tl.where(v28, 0.0, v29)
    v31 = tl.abs(v30)
    v32 = v31 == float("inf")
    v33 = v15 & v32
    v34 = v14 * v30
    v35 = tl.where(v33, 0.0, v34)
    v36 = log1p(v14)
    v37 = v36 * v17
    v38 = v37 / v23
    v39 = tl.where(v22, 1.0, v38)
    v40 = tl.fma(v39, v14, v35)
    v41 = v11 * v40
    v42 = v41 / v17
    v43 = v14 > 0.5
    v44 = expm1(v13)
    v45 = tl.fma(-v19, v44, v10)
    v46 = v16 - v20
    v47 = tl.where(v43, v45, v46)
    v48 = v42 + v47
    v49 = v6 * v48
    v50 = v49 / v17
    v51 = -v50
    v52 = tl.where(v1, v51, v50)
    v53 = positive - negative
    v54 = v53.to(x.dtype) * v16
    v55 = -v5
    v56 = tl.where(v1, v55, v5)
    v57 = 0.0 * v56
    v58 = -v44
    v59 = v57 * v58
    v60 = v59 / v17
    v61 = tl.fma(-v60, v24, v54)
    v62 = v61 - v56
    v63 = v62 == 0.0
    v64 = v63 & v27
    v65 = v62 * v12
    v66 = tl.where(v64, 0.0, v65)
    v67 = v53.to(x.dtype) * v36
    v68 = tl.fma(-v60, v39, v67)
    v69 = v66 + v68
    v70 = 1.0 * v69
    return v52, v70


@triton.jit
def value_gamma_1(inputs, options):
    x = inputs[0]
    t = inputs[1]
    positive = options[0]
    negative = options[1]
    v1 = positive.to(x.dtype) * t
    v2 = 1.0 - t
    v3 = negative.to(x.dtype) * v2
    v4 = v1 + v3
    v5 = x < 0.0
    v6 = tl.where(v5, t, v2)
    v7 = tl.where(v5, v2, t)
    v8 = tl.abs(x)
    v9 = -v8
    v10 = exp(v9)
    v11 = tl.fma(v7, v10, v6)
    v12 = 1.0 + v10
    v13 = v11 / v12
    v14 = v13 == 0.0
    v15 = v6 == 0.0
    v16 = tl.abs(v8)
    v17 = v16 == float("inf")
    v18 = v15 & v17
    v19 = v6 * v8
    v20 = tl.where(v18, 0.0, v19)
    v21 = log1p(v10)
    v22 = v20 + v21
    v23 = tl.abs(v22)
    v24 = v23 == float("inf")
    v25 = v14 & v24
    v26 = v13 * v22
    v27 = tl.where(v25, 0.0, v26)
    v28 = v4 * v27
    return v28


@triton.jit
def slopes_gamma_1(inputs, options):
    x = inputs[0]
    t = inputs[1]
    positive = options[0]
    negative = options[1]
    v1 = x < 0.0
    v2 = positive.to(x.dtype) * t
    v3 = 1.0 - t
    v4 = negative.to(x.dtype) * v3
    v5 = v2 + v4
    v6 = tl.where(v1, t, v3)
    v7 = tl.where(v1, v3, t)
    v8 = tl.abs(x)
    v9 = -v8
    v10 = exp(v9)
    v11 = v7 * v10
    v12 = v6 + v11
    v13 = 1.0 + v10
    v14 = v12 / v13
    v15 = v5 * v14
    v16 = 2.0 * t
    v17 = 1.0 - v16
    v18 = -v17
    v19 = tl.where(v1, v18, v17)
    v20 = 1.0 * v19
    v21 = v10 == 0.0
    v22 = v6 * v13
    v23 = v12 == 0.0
    v24 = tl.where(v23, 1.0, v12)
    v25 = v22 / v24
    v26 = v25 == 0.0
    v27 = tl.abs(v8)
    v28 = v27 == float("inf")
    v29 = v26 & v28
    v30 = v25 * v8
    v31 = tl.where(v29, 0.0, v30)
    v32 = tl.abs(v31)
    v33 = v32 == float("inf")
    v34 = v21 & v33
    v35 = v10 * v31
    v36 = tl.where(v34, 0.0, v35)
    v37 = log1p(v10)
    v38 = v37 * v13
    v39 = v38 / v24
    v40 = tl.where(v23, 1.0, v39)
    v41 = tl.fma(v40, v10, v36)
    v42 = v20 * v41
    v43 = v42 / v13
    v44 = v10 > 0.5
    v45 = expm1(v9)
    v46 = tl.fma(-v7, v45, v19)
    v47 = v6 - v11
    v48 = tl.where(v44, v46, v47)
    v49 = v43 + v48
    v50 = v15 * v49
    v51 = v50 / v13
    v52 = -v51
    v53 = tl.where(v1, v52, v51)
    v54 = v14 == 0.0
    v55 = positive - negative
    v56 = v55.to(x.dtype) * v6
    v57 = -v5
    v58 = tl.where(v1, v57, v5)
    v59 = 1.0 * v58
    v60 = -v45
    v61 = v59 * v60
    v62 = v61 / v13
    v63 = tl.fma(-v62, v25, v56)
    v64 = v63 - v58
    v65 = v64 == 0.0
    v66 = v65 & v28
    v67 = v64 * v8
    v68 = tl.where(v66, 0.0, v67)
    v69 = v55.to(x.dtype) * v37
    v70 = tl.fma(-v62, v40, v69)
    v71 = v68 + v70
    v72 = tl.abs(v71)
    v73 = v72 == float("inf")
    v74 = v54 & v73
    v75 = v14 * v71
    v76 = tl.where(v74, 0.0, v75)
    return v53, v76


@triton.jit
def value_gamma_2(inputs, options):
    x = inputs[0]
    t = inputs[1]
    positive = options[0]
    negative = options[1]
    v1 = positive.to(x.dtype) * t
    v2 = 1.0 - t
    v3 = negative.to(x.dtype) * v2
    v4 = v1 + v3
    v5 = x < 0.0
    v6 = tl.where(v5, t, v2)
    v7 = tl.where(v5, v2, t)
    v8 = tl.abs(x)
    v9 = -v8
    v10 = exp(v9)
    v11 = tl.fma(v7, v10, v6)
    v12 = 1.0 + v10
    v13 = v11 / v12
    v14 = v13 * v13
    v15 = v14 == 0.0
    v16 = v6 == 0.0
    v17 = tl.abs(v8)
    v18 = v17 == float("inf")
    v19 = v16 & v18
    v20 = v6 * v8
    v21 = tl.where(v19, 0.0, v20)
    v22 = log1p(v10)
    v23 = v21 + v22
    v24 = tl.abs(v23)
    v25 = v24 == float("inf")
    v26 = v15 & v25
    v27 = v14 * v23
    v28 = tl.where(v26, 0.0, v27)
    v29 = v4 * v28
    return v29


@triton.jit
def slopes_gamma_2(inputs, options):
    x = inputs[0]
    t = inputs[1]
    positive = options[0]
    negative = options[1]
    v1 = x < 0.0
    v2 = positive.to(x.dtype) * t
    v3 = 1.0 - t
    v4 = negative.to(x.dtype) * v3
    v5 = v2 + v4
    v6 = tl.where(v1, t, v3)
    v7 = tl.where(v1, v3, t)
    v8 = tl.abs(x)
    v9 = -v8
    v10 = exp(v9)
    v11 = v7 * v10
    v12 = v6 + v11
    v13 = 1.0 + v10
    v14 = v12 / v13
    v15 = v14 * v14
    v16 = v5 * v15
    v17 = 2.0 * t
    v18 = 1.0 - v17
    v19 = -v18
    v20 = tl.where(v1, v19, v18)
    v21 = 2.0 * v20
    v22 = v10 == 0.0
    v23 = v6 * v13
    v24 = v12 == 0.0
    v25 = tl.where(v24, 1.0, v12)
    v26 = v23 / v25
    v27 = v26 == 0.0
    v28 = tl.abs(v8)
    v29 = v28 == float("inf")
    v30 = v27 & v29
    v31 = v26 * v8
    v32 = tl.where(v30, 0.0, v31)
    v33 = tl.abs(v32)
    v34 = v33 == float("inf")
    v35 = v22 & v34
    v36 = v10 * v32
    v37 = tl.where(v35, 0.0, v36)
    v38 = log1p(v10)
    v39 = v38 * v13
    v40 = v39 / v25
    v41 = tl.where(v24, 1.0, v40)
    v42 = tl.fma(v41, v10, v37)
    v43 = v21 * v42
    v44 = v43 / v13
    v45 = v10 > 0.5
    v46 = expm1(v9)
    v47 = tl.fma(-v7, v46, v20)
    v48 = v6 - v11
    v49 = tl.where(v45, v47, v48)
    v50 = v44 + v49
    v51 = v16 * v50
    v52 = v51 / v13
    v53 = -v52
    v54 = tl.where(v1, v53, v52)
    v55 = v15 == 0.0
    v56 = positive - negative
    v57 = v56.to(x.dtype) * v6
    v58 = -v5
    v59 = tl.where(v1, v58, v5)
    v60 = 2.0 * v59
    v61 = -v46
    v62 = v60 * v61
    v63 = v62 / v13
    v64 = tl.fma(-v63, v26, v57)
    v65 = v64 - v59
    v66 = v65 == 0.0
    v67 = v66 & v29
    v68 = v65 * v8
    v69 = tl.where(v67, 0.0, v68)
    v70 = v56.to(x.dtype) * v38
    v71 = tl.fma(-v63, v41, v70)
    v72 = v69 + v71
    v73 = tl.abs(v72)
    v74 = v73 == float("inf")
    v75 = v55 & v74
    v76 = v15 * v72
    v77 = tl.where(v75, 0.0, v76)
    return v54, v77


@triton.jit
def value_other_gamma(inputs, options):
    x = inputs[0]
    t = inputs[1]
    positive = options[0]
    negative = options[1]
    gamma = options[2]
    rate = options[3]
    degree = options[4]
    v1 = positive.to(x.dtype) * t
    v2 = 1.0 - t
    v3 = negative.to(x.dtype) * v2
    v4 = v1 + v3
    v5 = tl.abs(x)
    v6 = v5 > 80.0
    v7 = v5 < float("inf")
    v8 = v6 & v7
    v9 = x < 0.0
    v10 = tl.where(v9, t, v2)
    v11 = v10 == 0.0
    v12 = v8 & v11
    v13 = rate.to(x.dtype) * v5
    v14 = -v13
    v15 = exp(v14)
    v16 = pow(v15, degree.to(x.dtype))
    v17 = tl.where(v9, v2, t)
    v18 = -v5
    v19 = exp(v18)
    v20 = tl.fma(v17, v19, v10)
    v21 = 1.0 + v19
    v22 = v20 / v21
    v23 = tl.where(v12, 1.0, v22)
    v24 = pow(v23, gamma.to(x.dtype))
    v25 = tl.where(v12, v16, v24)
    v26 = v25 == 0.0
    v27 = tl.abs(v5)
    v28 = v27 == float("inf")
    v29 = v11 & v28
    v30 = v10 * v5
    v31 = tl.where(v29, 0.0, v30)
    v32 = log1p(v19)
    v33 = v31 + v32
    v34 = tl.abs(v33)
    v35 = v34 == float("inf")
    v36 = v26 & v35
    v37 = v25 * v33
    v38 = tl.where(v36, 0.0, v37)
    v39 = v4 * v38
    return v39


@triton.jit
def slopes_other_gamma(inputs, options):
    x = inputs[0]
    t = inputs[1]
    positive = options[0]
    negative = options[1]
    gamma = options[2]
    rate = options[3]
    degree = options[4]
    v1 = x < 0.0
    v2 = positive.to(x.dtype) * t
    v3 = 1.0 - t
    v4 = negative.to(x.dtype) * v3
    v5 = v2 + v4
    v6 = tl.abs(x)
    v7 = v6 > 80.0
    v8 = v6 < float("inf")
    v9 = v7 & v8
    v10 = tl.where(v1, t, v3)
    v11 = v10 == 0.0
    v12 = v9 & v11
    v13 = rate.to(x.dtype) * v6
    v14 = -v13
    v15 = exp(v14)
    v16 = pow(v15, degree.to(x.dtype))
    v17 = tl.where(v1, v3, t)
    v18 = -v6
    v19 = exp(v18)
    v20 = v17 * v19
    v21 = v10 + v20
    v22 = 1.0 + v19
    v23 = v21 / v22
    v24 = tl.where(v12, 1.0, v23)
    v25 = pow(v24, gamma.to(x.dtype))
    v26 = tl.where(v12, v16, v25)
    v27 = v5 * v26
    v28 = 2.0 * t
    v29 = 1.0 - v28
    v30 = -v29
    v31 = tl.where(v1, v30, v29)
    v32 = gamma.to(x.dtype) * v31
    v33 = v19 == 0.0
    v34 = v10 * v22
    v35 = v21 == 0.0
    v36 = tl.where(v35, 1.0, v21)
    v37 = v34 / v36
    v38 = v37 == 0.0
    v39 = tl.abs(v6)
    v40 = v39 == float("inf")
    v41 = v38 & v40
    v42 = v37 * v6
    v43 = tl.where(v41, 0.0, v42)
    v44 = tl.abs(v43)
    v45 = v44 == float("inf")
    v46 = v33 & v45
    v47 = v19 * v43
    v48 = tl.where(v46, 0.0, v47)
    v49 = log1p(v19)
    v50 = v49 * v22
    v51 = v50 / v36
    v52 = tl.where(v35, 1.0, v51)
    v53 = tl.fma(v52, v19, v48)
    v54 = v32 * v53
    v55 = v54 / v22
    v56 = v19 > 0.5
    v57 = expm1(v18)
    v58 = tl.fma(-v17, v57, v31)
    v59 = v10 - v20
    v60 = tl.where(v56, v58, v59)
    v61 = v55 + v60
    v62 = v27 * v61
    v63 = v62 / v22
    v64 = -v63
    v65 = tl.where(v1, v64, v63)
    v66 = v26 == 0.0
    v67 = positive - negative
    v68 = v67.to(x.dtype) * v10
    v69 = -v5
    v70 = tl.where(v1, v69, v5)
    v71 = gamma.to(x.dtype) * v70
    v72 = -v57
    v73 = v71 * v72
    v74 = v73 / v22
    v75 = tl.fma(-v74, v37, v68)
    v76 = v75 - v70
    v77 = v76 == 0.0
    v78 = v77 & v40
    v79 = v76 * v6
    v80 = tl.where(v78, 0.0, v79)
    v81 = v67.to(x.dtype) * v49
    v82 = tl.fma(-v74, v52, v81)
    v83 = v80 + v82
    v84 = tl.abs(v83)
    v85 = v84 == float("inf")
    v86 = v66 & v85
    v87 = v26 * v83
    v88 = tl.where(v86, 0.0, v87)
    return v65, v88


LOSS = Loss(
    inputs=2,
    optional=(),
    options=5,
    factor=1,
    block=256,
    choices=(("option", 2, (0.0, 1.0, 2.0)),),
    variants={
        (0.0,): (value_gamma_0, slopes_gamma_0),
        (1.0,): (value_gamma_1, slopes_gamma_1),
        (2.0,): (value_gamma_2, slopes_gamma_2),
        (None,): (value_other_gamma, slopes_other_gamma),
    },
)
