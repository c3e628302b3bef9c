# Written by python -m manual_grad.generate from losses/pointwise/asymmetric_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import at_least, at_most, exp, log1p, pow
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value_gamma_neg_4_gamma_pos_1(inputs, options):
    x = inputs[0]
    t = inputs[1]
    clip = options[2]
    v1 = t == 0.0
    v2 = x < 0.0
    v3 = tl.abs(x)
    v4 = -v3
    v5 = exp(v4)
    v6 = tl.where(v2, 1.0, v5)
    v7 = 1.0 + v5
    v8 = v6 / v7
    v9 = -x
    v10 = tl.where(v2, v9, 0.0)
    v11 = log1p(v5)
    v12 = v10 + v11
    v13 = v8 * v12
    v14 = tl.abs(v13)
    v15 = v14 == float("inf")
    v16 = v1 & v15
    v17 = t * v13
    v18 = tl.where(v16, 0.0, v17)
    v19 = 1.0 - t
    v20 = v19 == 0.0
    v21 = tl.where(v2, v5, 1.0)
    v22 = v21 / v7
    v23 = v22 - clip.to(x.dtype)
    v24 = 1.0 - clip
    v25 = v24.to(x.dtype) - v8
    v26 = tl.where(v2, v23, v25)
    v27 = at_least(v26, 0.0)
    v28 = v27 * v27
    v29 = v28 * v28
    v30 = v27 > 0.5
    v31 = v8 + clip.to(x.dtype)
    v32 = tl.log(v31)
    v33 = -v32
    v34 = tl.where(v2, 0.0, x)
    v35 = v34 + v11
    v36 = tl.where(v33 < v35, v33, tl.where(v33 == v33, v35, v33))
    v37 = at_most(v27, 0.5)
    v38 = -v37
    v39 = log1p(v38)
    v40 = -v39
    v41 = tl.where(v30, v36, v40)
    v42 = v29 * v41
    v43 = tl.abs(v42)
    v44 = v43 == float("inf")
    v45 = v20 & v44
    v46 = v19 * v42
    v47 = tl.where(v45, 0.0, v46)
    v48 = v18 + v47
    return v48


@triton.jit
def slopes_gamma_neg_4_gamma_pos_1(inputs, options):
    x = inputs[0]
    t = inputs[1]
    clip = options[2]
    v1 = x < 0.0
    v2 = tl.abs(x)
    v3 = -v2
    v4 = exp(v3)
    v5 = tl.where(v1, 1.0, v4)
    v6 = 1.0 + v4
    v7 = v5 / v6
    v8 = -v7
    v9 = tl.where(v1, v4, 1.0)
    v10 = v9 / v6
    v11 = v10 == 0.0
    v12 = -x
    v13 = tl.where(v1, v12, 0.0)
    v14 = log1p(v4)
    v15 = v13 + v14
    v16 = tl.abs(v15)
    v17 = v16 == float("inf")
    v18 = v11 & v17
    v19 = v10 * v15
    v20 = tl.where(v18, 0.0, v19)
    v21 = 1.0 * v20
    v22 = v21 + v7
    v23 = v8 * v22
    v24 = 1.0 - t
    v25 = v10 - clip.to(x.dtype)
    v26 = 1.0 - clip
    v27 = v26.to(x.dtype) - v7
    v28 = tl.where(v1, v25, v27)
    v29 = at_least(v28, 0.0)
    v30 = v29 == 0.0
    v31 = tl.where(v30, 1.0, v29)
    v32 = v31 * v31
    v33 = v32 * v32
    v34 = v10 * v7
    v35 = v34 / v31
    v36 = v35 == 0.0
    v37 = v29 > 0.5
    v38 = v7 + clip.to(x.dtype)
    v39 = tl.log(v38)
    v40 = -v39
    v41 = tl.where(v1, 0.0, x)
    v42 = v41 + v14
    v43 = tl.where(v40 < v42, v40, tl.where(v40 == v40, v42, v40))
    v44 = at_most(v29, 0.5)
    v45 = -v44
    v46 = log1p(v45)
    v47 = -v46
    v48 = tl.where(v37, v43, v47)
    v49 = tl.abs(v48)
    v50 = v49 == float("inf")
    v51 = v36 & v50
    v52 = v35 * v48
    v53 = tl.where(v51, 0.0, v52)
    v54 = 4.0 * v53
    v55 = v38 == 0.0
    v56 = v7 / v38
    v57 = tl.where(v55, 1.0, v56)
    v58 = tl.fma(v10, v57, v54)
    v59 = v33 * v58
    v60 = tl.where(v30, 0.0, v59)
    v61 = v24 * v60
    v62 = tl.fma(t, v23, v61)
    v63 = v29 * v29
    v64 = v63 * v63
    v65 = v64 * v48
    v66 = tl.fma(v7, v15, -v65)
    return v62, v66


@triton.jit
def value_gamma_neg_4_other_gamma_pos(inputs, options):
    x = inputs[0]
    t = inputs[1]
    gamma_pos = options[1]
    clip = options[2]
    v1 = t == 0.0
    v2 = x < 0.0
    v3 = tl.abs(x)
    v4 = -v3
    v5 = exp(v4)
    v6 = tl.where(v2, 1.0, v5)
    v7 = 1.0 + v5
    v8 = v6 / v7
    v9 = pow(v8, gamma_pos.to(x.dtype))
    v10 = -x
    v11 = tl.where(v2, v10, 0.0)
    v12 = log1p(v5)
    v13 = v11 + v12
    v14 = v9 * v13
    v15 = tl.abs(v14)
    v16 = v15 == float("inf")
    v17 = v1 & v16
    v18 = t * v14
    v19 = tl.where(v17, 0.0, v18)
    v20 = 1.0 - t
    v21 = v20 == 0.0
    v22 = tl.where(v2, v5, 1.0)
    v23 = v22 / v7
    v24 = v23 - clip.to(x.dtype)
    v25 = 1.0 - clip
    v26 = v25.to(x.dtype) - v8
    v27 = tl.where(v2, v24, v26)
    v28 = at_least(v27, 0.0)
    v29 = v28 * v28
    v30 = v29 * v29
    v31 = v28 > 0.5
    v32 = v8 + clip.to(x.dtype)
    v33 = tl.log(v32)
    v34 = -v33
    v35 = tl.where(v2, 0.0, x)
    v36 = v35 + v12
    v37 = tl.where(v34 < v36, v34, tl.where(v34 == v34, v36, v34))
    v38 = at_most(v28, 0.5)
    v39 = -v38
    v40 = log1p(v39)
    v41 = -v40
    v42 = tl.where(v31, v37, v41)
    v43 = v30 * v42
    v44 = tl.abs(v43)
    v45 = v44 == float("inf")
    v46 = v21 & v45
    v47 = v20 * v43
    v48 = tl.where(v46, 0.0, v47)
    v49 = v19 + v48
    return v49


@triton.jit
def slopes_gamma_neg_4_other_gamma_pos(inputs, options):
    x = inputs[0]
    t = inputs[1]
    gamma_pos = options[1]
    clip = options[2]
    v1 = x < 0.0
    v2 = tl.abs(x)
    v3 = -v2
    v4 = exp(v3)
    v5 = tl.where(v1, 1.0, v4)
    v6 = 1.0 + v4
    v7 = v5 / v6
    v8 = pow(v7, gamma_pos.to(x.dtype))
    v9 = -v8
    v10 = tl.where(v1, v4, 1.0)
    v11 = v10 / v6
    v12 = v11 == 0.0
    v13 = -x
    v14 = tl.where(v1, v13, 0.0)
    v15 = log1p(v4)
    v16 = v14 + v15
    v17 = tl.abs(v16)
    v18 = v17 == float("inf")
    v19 = v12 & v18
    v20 = v11 * v16
    v21 = tl.where(v19, 0.0, v20)
    v22 = gamma_pos.to(x.dtype) * v21
    v23 = v22 + v7
    v24 = v9 * v23
    v25 = 1.0 - t
    v26 = v11 - clip.to(x.dtype)
    v27 = 1.0 - clip
    v28 = v27.to(x.dtype) - v7
    v29 = tl.where(v1, v26, v28)
    v30 = at_least(v29, 0.0)
    v31 = v30 == 0.0
    v32 = tl.where(v31, 1.0, v30)
    v33 = v32 * v32
    v34 = v33 * v33
    v35 = v11 * v7
    v36 = v35 / v32
    v37 = v36 == 0.0
    v38 = v30 > 0.5
    v39 = v7 + clip.to(x.dtype)
    v40 = tl.log(v39)
    v41 = -v40
    v42 = tl.where(v1, 0.0, x)
    v43 = v42 + v15
    v44 = tl.where(v41 < v43, v41, tl.where(v41 == v41, v43, v41))
    v45 = at_most(v30, 0.5)
    v46 = -v45
    v47 = log1p(v46)
    v48 = -v47
    v49 = tl.where(v38, v44, v48)
    v50 = tl.abs(v49)
    v51 = v50 == float("inf")
    v52 = v37 & v51
    v53 = v36 * v49
    v54 = tl.where(v52, 0.0, v53)
    v55 = 4.0 * v54
    v56 = v39 == 0.0
    v57 = v7 / v39
    v58 = tl.where(v56, 1.0, v57)
    v59 = tl.fma(v11, v58, v55)
    v60 = v34 * v59
    v61 = tl.where(v31, 0.0, v60)
    v62 = v25 * v61
    v63 = tl.fma(t, v24, v62)
    v64 = v30 * v30
    v65 = v64 * v64
    v66 = v65 * v49
    v67 = tl.fma(v8, v16, -v66)
    return v63, v67


@triton.jit
def value_other_gamma_neg_gamma_pos_1(inputs, options):
    x = inputs[0]
    t = inputs[1]
    gamma_neg = options[0]
    clip = options[2]
    v1 = t == 0.0
    v2 = x < 0.0
    v3 = tl.abs(x)
    v4 = -v3
    v5 = exp(v4)
    v6 = tl.where(v2, 1.0, v5)
    v7 = 1.0 + v5
    v8 = v6 / v7
    v9 = -x
    v10 = tl.where(v2, v9, 0.0)
    v11 = log1p(v5)
    v12 = v10 + v11
    v13 = v8 * v12
    v14 = tl.abs(v13)
    v15 = v14 == float("inf")
    v16 = v1 & v15
    v17 = t * v13
    v18 = tl.where(v16, 0.0, v17)
    v19 = 1.0 - t
    v20 = v19 == 0.0
    v21 = tl.where(v2, v5, 1.0)
    v22 = v21 / v7
    v23 = v22 - clip.to(x.dtype)
    v24 = 1.0 - clip
    v25 = v24.to(x.dtype) - v8
    v26 = tl.where(v2, v23, v25)
    v27 = at_least(v26, 0.0)
    v28 = pow(v27, gamma_neg.to(x.dtype))
    v29 = v27 > 0.5
    v30 = v8 + clip.to(x.dtype)
    v31 = tl.log(v30)
    v32 = -v31
    v33 = tl.where(v2, 0.0, x)
    v34 = v33 + v11
    v35 = tl.where(v32 < v34, v32, tl.where(v32 == v32, v34, v32))
    v36 = at_most(v27, 0.5)
    v37 = -v36
    v38 = log1p(v37)
    v39 = -v38
    v40 = tl.where(v29, v35, v39)
    v41 = v28 * v40
    v42 = tl.abs(v41)
    v43 = v42 == float("inf")
    v44 = v20 & v43
    v45 = v19 * v41
    v46 = tl.where(v44, 0.0, v45)
    v47 = v18 + v46
    return v47


@triton.jit
def slopes_other_gamma_neg_gamma_pos_1(inputs, options):
    x = inputs[0]
    t = inputs[1]
    gamma_neg = options[0]
    clip = options[2]
    v1 = x < 0.0
    v2 = tl.abs(x)
    v3 = -v2
    v4 = exp(v3)
    v5 = tl.where(v1, 1.0, v4)
    v6 = 1.0 + v4
    v7 = v5 / v6
    v8 = -v7
    v9 = tl.where(v1, v4, 1.0)
    v10 = v9 / v6
    v11 = v10 == 0.0
    v12 = -x
    v13 = tl.where(v1, v12, 0.0)
    v14 = log1p(v4)
    v15 = v13 + v14
    v16 = tl.abs(v15)
    v17 = v16 == float("inf")
    v18 = v11 & v17
    v19 = v10 * v15
    v20 = tl.where(v18, 0.0, v19)
    v21 = 1.0 * v20
    v22 = v21 + v7
    v23 = v8 * v22
    v24 = 1.0 - t
    v25 = v10 - clip.to(x.dtype)
    v26 = 1.0 - clip
    v27 = v26.to(x.dtype) - v7
    v28 = tl.where(v1, v25, v27)
    v29 = at_least(v28, 0.0)
    v30 = v29 == 0.0
    v31 = tl.where(v30, 1.0, v29)
    v32 = pow(v31, gamma_neg.to(x.dtype))
    v33 = v10 * v7
    v34 = v33 / v31
    v35 = v34 == 0.0
    v36 = v29 > 0.5
    v37 = v7 + clip.to(x.dtype)
    v38 = tl.log(v37)
    v39 = -v38
    v40 = tl.where(v1, 0.0, x)
    v41 = v40 + v14
    v42 = tl.where(v39 < v41, v39, tl.where(v39 == v39, v41, v39))
    v43 = at_most(v29, 0.5)
    v44 = -v43
    v45 = log1p(v44)
    v46 = -v45
    v47 = tl.where(v36, v42, v46)
    v48 = tl.abs(v47)
    v49 = v48 == float("inf")
    v50 = v35 & v49
    v51 = v34 * v47
    v52 = tl.where(v50, 0.0, v51)
    v53 = gamma_neg.to(x.dtype) * v52
    v54 = v37 == 0.0
    v55 = v7 / v37
    v56 = tl.where(v54, 1.0, v55)
    v57 = tl.fma(v10, v56, v53)
    v58 = v32 * v57
    v59 = tl.where(v30, 0.0, v58)
    v60 = v24 * v59
    v61 = tl.fma(t, v23, v60)
    v62 = pow(v29, gamma_neg.to(x.dtype))
    v63 = v62 * v47
    v64 = tl.fma(v7, v15, -v63)
    return v61, v64


@triton.jit
def value_other_gamma_neg_other_gamma_pos(inputs, options):
    x = inputs[0]
    t = inputs[1]
    gamma_neg = options[0]
    gamma_pos = options[1]
    clip = options[2]
    v1 = t == 0.0
    v2 = x < 0.0
    v3 = tl.abs(x)
    v4 = -v3
    v5 = exp(v4)
    v6 = tl.where(v2, 1.0, v5)
    v7 = 1.0 + v5
    v8 = v6 / v7
    v9 = pow(v8, gamma_pos.to(x.dtype))
    v10 = -x
    v11 = tl.where(v2, v10, 0.0)
    v12 = log1p(v5)
    v13 = v11 + v12
    v14 = v9 * v13
    v15 = tl.abs(v14)
    v16 = v15 == float("inf")
    v17 = v1 & v16
    v18 = t * v14
    v19 = tl.where(v17, 0.0, v18)
    v20 = 1.0 - t
    v21 = v20 == 0.0
    v22 = tl.where(v2, v5, 1.0)
    v23 = v22 / v7
    v24 = v23 - clip.to(x.dtype)
    v25 = 1.0 - clip
    v26 = v25.to(x.dtype) - v8
    v27 = tl.where(v2, v24, v26)
    v28 = at_least(v27, 0.0)
    v29 = pow(v28, gamma_neg.to(x.dtype))
    v30 = v28 > 0.5
    v31 = v8 + clip.to(x.dtype)
    v32 = tl.log(v31)
    v33 = -v32
    v34 = tl.where(v2, 0.0, x)
    v35 = v34 + v12
    v36 = tl.where(v33 < v35, v33, tl.where(v33 == v33, v35, v33))
    v37 = at_most(v28, 0.5)
    v38 = -v37
    v39 = log1p(v38)
    v40 = -v39
    v41 = tl.where(v30, v36, v40)
    v42 = v29 * v41
    v43 = tl.abs(v42)
    v44 = v43 == float("inf")
    v45 = v21 & v44
    v46 = v20 * v42
    v47 = tl.where(v45, 0.0, v46)
    v48 = v19 + v47
    return v48


@triton.jit
def slopes_other_gamma_neg_other_gamma_pos(inputs, options):
    x = inputs[0]
    t = inputs[1]
    gamma_neg = options[0]
    gamma_pos = options[1]
    clip = options[2]
    v1 = x < 0.0
    v2 = tl.abs(x)
    v3 = -v2
    v4 = exp(v3)
    v5 = tl.where(v1, 1.0, v4)
    v6 = 1.0 + v4
    v7 = v5 / v6
    v8 = pow(v7, gamma_pos.to(x.dtype))
    v9 = -v8
    v10 = tl.where(v1, v4, 1.0)
    v11 = v10 / v6
    v12 = v11 == 0.0
    v13 = -x
    v14 = tl.where(v1, v13, 0.0)
    v15 = log1p(v4)
    v16 = v14 + v15
    v17 = tl.abs(v16)
    v18 = v17 == float("inf")
    v19 = v12 & v18
    v20 = v11 * v16
    v21 = tl.where(v19, 0.0, v20)
    v22 = gamma_pos.to(x.dtype) * v21
    v23 = v22 + v7
    v24 = v9 * v23
    v25 = 1.0 - t
    v26 = v11 - clip.to(x.dtype)
    v27 = 1.0 - clip
    v28 = v27.to(x.dtype) - v7
    v29 = tl.where(v1, v26, v28)
    v30 = at_least(v29, 0.0)
    v31 = v30 == 0.0
    v32 = tl.where(v31, 1.0, v30)
    v33 = pow(v32, gamma_neg.to(x.dtype))
    v34 = v11 * v7
    v35 = v34 / v32
    v36 = v35 == 0.0
    v37 = v30 > 0.5
    v38 = v7 + clip.to(x.dtype)
    v39 = tl.log(v38)
    v40 = -v39
    v41 = tl.where(v1, 0.0, x)
    v42 = v41 + v15
    v43 = tl.where(v40 < v42, v40, tl.where(v40 == v40, v42, v40))
    v44 = at_most(v30, 0.5)
    v45 = -v44
    v46 = log1p(v45)
    v47 = -v46
    v48 = tl.where(v37, v43, v47)
    v49 = tl.abs(v48)
    v50 = v49 == float("inf")
    v51 = v36 & v50
    v52 = v35 * v48
    v53 = tl.where(v51, 0.0, v52)
    v54 = gamma_neg.to(x.dtype) * v53
    v55 = v38 == 0.0
    v56 = v7 / v38
    v57 = tl.where(v55, 1.0, v56)
    v58 = tl.fma(v11, v57, v54)
    v59 = v33 * v58
    v60 = tl.where(v31, 0.0, v59)
    v61 = v25 * v60
    v62 = tl.fma(t, v24, v61)
    v63 = pow(v30, gamma_neg.to(x.dtype))
    v64 = v63 * v48
    v65 = tl.fma(v8, v16, -v64)
    return v62, v65


LOSS = Loss(
    inputs=2,
    optional=(),
    options=3,
    factor=1,
    block=256,
    choices=(("option", 0, (4.0,)), ("option", 1, (1.0,))),
    variants={
        (4.0, 1.0): (value_gamma_neg_4_gamma_pos_1, slopes_gamma_neg_4_gamma_pos_1),
        (4.0, None): (value_gamma_neg_4_other_gamma_pos, slopes_gamma_neg_4_other_gamma_pos),
        (None, 1.0): (value_other_gamma_neg_gamma_pos_1, slopes_other_gamma_neg_gamma_pos_1),
        (None, None): (value_other_gamma_neg_other_gamma_pos, slopes_other_gamma_neg_other_gamma_pos),
    },
)
