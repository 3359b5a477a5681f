#!/usr/bin/env python3
"""What a faster way to train on NVIDIA's GPUs could be built of, measured one question a call, as CSV on stdout.

    gpu_questions.py products|statistics|depthwise|properties [--batch 256] [--out DIR] [--check]

products     the 1×1 convolutions of three models in bf16: cuDNN's convolution against cuBLASLt's product, all three passes
statistics   cuDNN's convolution with the sums that a batch norm needs in its epilogue, against the plain one
depthwise    a prototype of all three passes of a depthwise convolution, against cuDNN's and the card's memory
properties   the card's properties as cuDNN describes them, which plans can be made from elsewhere: DIR/device.json

Needs PyTorch with CUDA; `statistics` also the Python package of cudnn-frontend. `--check` needs no GPU: it compiles the
prototype by NVRTC and lists what would be measured. A measurement that fails is a row with the error.
"""
import argparse
import csv
import ctypes
import glob
import os
import statistics as stats
import sys
import sysconfig

# Side of the input, channels in and out, how often a model has it. From timm's resnet50, efficientnet_b0, mobilenetv2_100.
POINTWISE = {
    "resnet50": [(56, 64, 64, 1), (56, 64, 256, 4), (56, 256, 64, 2), (56, 256, 128, 1), (28, 128, 512, 4), (28, 512, 128, 3),
                 (28, 512, 256, 1), (14, 256, 1024, 6), (14, 1024, 256, 5), (14, 1024, 512, 1), (7, 512, 2048, 3), (7, 2048, 512, 2)],
    "efficientnet_b0": [(112, 32, 16, 1), (112, 16, 96, 1), (56, 96, 24, 1), (56, 24, 144, 2), (56, 144, 24, 1), (28, 144, 40, 1),
                        (28, 40, 240, 2), (28, 240, 40, 1), (14, 240, 80, 1), (14, 80, 480, 3), (14, 480, 80, 2),
                        (14, 480, 112, 1), (14, 112, 672, 3), (14, 672, 112, 2), (7, 672, 192, 1), (7, 192, 1152, 4),
                        (7, 1152, 192, 3), (7, 1152, 320, 1), (7, 320, 1280, 1)],
    "mobilenetv2_100": [(112, 32, 16, 1), (112, 16, 96, 1), (56, 96, 24, 1), (56, 24, 144, 2), (56, 144, 24, 1), (28, 144, 32, 1),
                        (28, 32, 192, 3), (28, 192, 32, 2), (14, 192, 64, 1), (14, 64, 384, 4), (14, 384, 64, 3), (14, 384, 96, 1),
                        (14, 96, 576, 3), (14, 576, 96, 2), (7, 576, 160, 1), (7, 160, 960, 3), (7, 960, 160, 2), (7, 960, 320, 1),
                        (7, 320, 1280, 1)],
}
# Side of the input, channels, kernel, stride.
DEPTHWISE = [(112, 32, 3, 1), (112, 96, 3, 2), (56, 144, 3, 1), (28, 192, 3, 1), (14, 384, 3, 1), (14, 576, 3, 2), (7, 960, 3, 1),
             (56, 144, 5, 2), (28, 240, 5, 1), (14, 672, 5, 1), (7, 1152, 5, 1)]
# Convolutions of resnet50 with windows: side, channels in and out, kernel, stride.
DENSE = [(56, 64, 64, 3, 1), (28, 128, 128, 3, 1), (14, 256, 256, 3, 1), (7, 512, 512, 3, 1), (224, 3, 64, 7, 2)]

# A unit has V channels of T results along a row in `forward`, and of every YN-th row in `dweight`. bf16 by hand: no header is
# needed.
KERNELS = r"""
typedef unsigned short bf16;
struct __align__(2 * V) Pack { bf16 v[V]; };
__device__ float wide(bf16 b) { return __uint_as_float((unsigned)b << 16); }
__device__ bf16 narrow(float f) {
    unsigned u = __float_as_uint(f);
    return (bf16)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
// FLIP: the gradient of the images of a convolution of stride 1, which is one with its filter turned round.
extern "C" __global__ void forward(const Pack* x, const float* w, Pack* y, int n, int h, int wd, int cv, int ho, int wo) {
    const int P = K / 2, tiles = (wo + T - 1) / T;
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)n * ho * tiles * cv) return;
    int c = at % cv, tile = at / cv % tiles, oy = at / cv / tiles % ho, image = at / cv / tiles / ho;
    float acc[T][V] = {};
#pragma unroll
    for (int ky = 0; ky < K; ky++) {
        int iy = oy * S + ky - P;
        if (iy < 0 || iy >= h) continue;
        float f[K][V];
#pragma unroll
        for (int kx = 0; kx < K; kx++)
#pragma unroll
            for (int v = 0; v < V; v++)
                f[kx][v] = w[(FLIP ? K * K - 1 - ky * K - kx : ky * K + kx) * cv * V + c * V + v];
#pragma unroll
        for (int j = 0; j < (T - 1) * S + K; j++) {
            int ix = tile * T * S + j - P;
            if (ix < 0 || ix >= wd) continue;
            Pack p = x[(((long long)image * h + iy) * wd + ix) * cv + c];
#pragma unroll
            for (int t = 0; t < T; t++) {
                int kx = j - t * S;
                if (kx < 0 || kx >= K) continue;
#pragma unroll
                for (int v = 0; v < V; v++) acc[t][v] += wide(p.v[v]) * f[kx][v];
            }
        }
    }
#pragma unroll
    for (int t = 0; t < T; t++) {
        int ox = tile * T + t;
        if (ox >= wo) break;
        Pack p;
#pragma unroll
        for (int v = 0; v < V; v++) p.v[v] = narrow(acc[t][v]);
        y[(((long long)image * ho + oy) * wo + ox) * cv + c] = p;
    }
}
extern "C" __global__ void dweight(const Pack* x, const Pack* dy, float* dw, int n, int h, int wd, int cv, int ho, int wo) {
    const int P = K / 2;
    int c = blockIdx.x * 32 + threadIdx.x;
    float acc[K * K][V] = {};
    if (c < cv)
        for (int row = blockIdx.y * YN + threadIdx.y; row < n * ho; row += gridDim.y * YN) {
            int oy = row % ho, image = row / ho;
            for (int ox = 0; ox < wo; ox++) {
                Pack d = dy[((long long)row * wo + ox) * cv + c];
#pragma unroll
                for (int k = 0; k < K * K; k++) {
                    int iy = oy * S + k / K - P, ix = ox * S + k % K - P;
                    if (iy < 0 || iy >= h || ix < 0 || ix >= wd) continue;
                    Pack p = x[(((long long)image * h + iy) * wd + ix) * cv + c];
#pragma unroll
                    for (int v = 0; v < V; v++) acc[k][v] += wide(p.v[v]) * wide(d.v[v]);
                }
            }
        }
    __shared__ float sums[YN][32][V];
#pragma unroll
    for (int k = 0; k < K * K; k++) {
#pragma unroll
        for (int v = 0; v < V; v++) sums[threadIdx.y][threadIdx.x][v] = acc[k][v];
        __syncthreads();
        if (threadIdx.y == 0 && c < cv)
#pragma unroll
            for (int v = 0; v < V; v++) {
                float sum = 0;
                for (int y = 0; y < YN; y++) sum += sums[y][threadIdx.x][v];
                atomicAdd(dw + k * cv * V + c * V + v, sum);
            }
        __syncthreads();
    }
}
"""
HEAD = "question,model,shape,count,pass,program,ms,tflops,gbytes_per_s,error".split(",")
ROWS = csv.writer(sys.stdout)


def report(question, model, shape, count, pass_, program, measure, flops=0.0, nbytes=0.0):
    """Prints a row; a failure is one, too."""
    start = [question, model, shape, count, pass_, program]
    try:
        ms = measure()
        ROWS.writerow([*start, f"{ms:.4f}", f"{flops / ms / 1e9:.1f}", f"{nbytes / ms / 1e6:.0f}", ""])
    except Exception as error:  # noqa: BLE001: one failure must not end the others
        ROWS.writerow([*start, "", "", "", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"])
    sys.stdout.flush()


def time_of(run, repeats=20):
    """Median milliseconds of a run, between events on the GPU."""
    import torch

    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return stats.median(times)


def images(torch, *shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16).to(memory_format=torch.channels_last)


def products(batch):
    import torch

    conv = torch.ops.aten.convolution_backward
    torch.backends.cudnn.benchmark = True
    for model, shapes in POINTWISE.items():
        for side, c_in, c_out, count in shapes:
            rows, shape = batch * side * side, f"{side}x{side} {c_in}->{c_out}"
            flops, nbytes = 2.0 * rows * c_in * c_out, 2.0 * (rows * (c_in + c_out) + c_in * c_out)
            x, dy = images(torch, batch, c_in, side, side), images(torch, batch, c_out, side, side)
            w = images(torch, c_out, c_in, 1, 1)
            xr, dyr = x.permute(0, 2, 3, 1).reshape(rows, c_in), dy.permute(0, 2, 3, 1).reshape(rows, c_out)
            wr = w.reshape(c_out, c_in)

            def back(mask):
                return lambda: conv(dy, x, w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, mask)

            runs = [
                ("forward", "cudnn", lambda: torch.nn.functional.conv2d(x, w)),
                ("forward", "cublaslt", lambda: torch.mm(xr, wr.t())),
                ("dx", "cudnn", back([True, False, False])),
                ("dx", "cublaslt", lambda: torch.mm(dyr, wr)),
                ("dweight", "cudnn", back([False, True, False])),
                ("dweight", "cublaslt", lambda: torch.mm(dyr.t(), xr)),
            ]
            pieces = next((p for p in (64, 32, 16, 8, 4, 2) if rows % p == 0 and rows // p >= 1024), 1)
            batched = (pieces, rows // pieces)
            runs.append(("dweight", f"cublaslt in {pieces} pieces", lambda: torch.bmm(
                dyr.reshape(*batched, c_out).transpose(1, 2), xr.reshape(*batched, c_in)).sum(0, dtype=torch.float32)))
            for pass_, program, run in runs:
                report("products", model, shape, count, pass_, program, lambda run=run: time_of(run), flops, nbytes)


def statistics(batch):
    import torch

    shapes = [(side, c_in, c_out, 1, 1) for s in POINTWISE.values() for side, c_in, c_out, _ in s]
    shapes = DENSE + sorted(set(shapes), reverse=True)
    for side, c_in, c_out, kernel, stride in shapes:
        out = (side + stride - 1) // stride
        shape = f"{side}x{side} {c_in}->{c_out} {kernel}x{kernel}/{stride}"
        flops = 2.0 * batch * out * out * c_in * c_out * kernel * kernel
        nbytes = 2.0 * batch * (side * side * c_in + out * out * c_out)
        for sums in (False, True):
            program = "cudnn convolution with sums" if sums else "cudnn convolution"
            measure = lambda sums=sums: frontend(torch, batch, side, c_in, c_out, kernel, stride, sums)  # noqa: E731
            report("statistics", "", shape, 1, "forward", program, measure, flops, nbytes)


def frontend(torch, batch, side, c_in, c_out, kernel, stride, sums):
    """Milliseconds of a graph of cudnn-frontend: a convolution, and the sums of its results and of their squares."""
    import cudnn

    out, half = (side + stride - 1) // stride, kernel // 2
    x, w = images(torch, batch, c_in, side, side), images(torch, c_out, c_in, kernel, kernel)
    y = torch.empty(batch, c_out, out, out, device="cuda", dtype=torch.bfloat16, memory_format=torch.channels_last)
    graph = cudnn.pygraph(
        io_data_type=cudnn.data_type.BFLOAT16,
        intermediate_data_type=cudnn.data_type.FLOAT,
        compute_data_type=cudnn.data_type.FLOAT,
    )
    gx, gw = graph.tensor_like(x), graph.tensor_like(w)
    gy = graph.conv_fprop(gx, gw, padding=[half, half], stride=[stride, stride], dilation=[1, 1])
    gy.set_output(True).set_data_type(cudnn.data_type.BFLOAT16)
    given = {gx: x, gw: w, gy: y}
    if sums:
        for total in graph.genstats(gy, compute_data_type=cudnn.data_type.FLOAT):
            total.set_output(True).set_data_type(cudnn.data_type.FLOAT)
            given[total] = torch.zeros(1, c_out, 1, 1, device="cuda")
    graph.build([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    space = torch.empty(max(graph.get_workspace_size(), 1), device="cuda", dtype=torch.uint8)
    return time_of(lambda: graph.execute(given, space))


def library(name):
    """A shared library of CUDA, from Python's packages or the toolkit."""
    site = sysconfig.get_paths()["purelib"]
    places = [f"{site}/nvidia/*/lib/{name}.so*", f"/usr/local/cuda*/lib64/{name}.so*", f"/usr/lib/*/{name}.so*"]
    found = [path for place in places for path in sorted(glob.glob(place)) if "alt" not in path and "builtins" not in path]
    return ctypes.CDLL(found[0] if found else f"{name}.so", mode=ctypes.RTLD_GLOBAL)


def compiled(architecture, **defines):
    """The prototype as a CUBIN, for K×K filters of stride S."""
    nvrtc, program = library("libnvrtc"), ctypes.c_void_p()
    # In the source, not as options: NVRTC's own header is read before it, and has such names, too.
    source = "".join(f"#define {key} {value}\n" for key, value in defines.items()) + KERNELS
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"depthwise.cu", 0, None, None)
    options = [f"-arch={architecture}", "-default-device"]
    array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    size = ctypes.c_size_t()
    if nvrtc.nvrtcCompileProgram(program, len(options), array):
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        raise RuntimeError("NVRTC: " + log.value.decode().replace("\n", " | ")[:300])
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
    cubin = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetCUBIN(program, cubin)
    return cubin


def launcher(cubin, name):
    """A function that launches a kernel of it on PyTorch's stream: grid, block, tensors and integers."""
    import torch

    driver, module, kernel = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_void_p()
    for code in (
        driver.cuModuleLoadData(ctypes.byref(module), cubin),
        driver.cuModuleGetFunction(ctypes.byref(kernel), module, name.encode()),
    ):
        if code:
            raise RuntimeError(f"CUDA driver: error {code}")

    def launch(grid, block, *args):
        values = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else ctypes.c_int(a) for a in args]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        code = driver.cuLaunchKernel(kernel, *grid, 1, *block, 1, 0, stream, pointers, None)
        if code:
            raise RuntimeError(f"CUDA driver: error {code}")

    return launch


def variants(kernel, stride):
    """Constants of the prototype, by pass: channels of a unit, results of a unit, whether the filter is turned round."""
    found = {"forward": dict(K=kernel, S=stride, V=8, T=4 if stride == 1 else 2, FLIP=0, YN=8)}
    if stride == 1:
        found["dx"] = dict(found["forward"], FLIP=1)
    found["dweight"] = dict(K=kernel, S=stride, V=8 if kernel == 3 else 2, T=1, FLIP=0, YN=8)
    return found


def depthwise(batch):
    import torch

    major, minor = torch.cuda.get_device_capability()
    back = torch.ops.aten.convolution_backward
    torch.backends.cudnn.benchmark = True
    for side, c, kernel, stride in DEPTHWISE:
        out, half = (side + stride - 1) // stride, kernel // 2
        shape = f"{side}x{side} {c} {kernel}x{kernel}/{stride}"
        x, dy = images(torch, batch, c, side, side), images(torch, batch, c, out, out)
        w = torch.randn(c, 1, kernel, kernel, device="cuda", dtype=torch.bfloat16)
        taps = w.reshape(c, kernel * kernel).t().float().contiguous()
        nbytes, flops = 2.0 * batch * c * (side * side + out * out), 2.0 * batch * c * out * out * kernel * kernel

        def peer(mask):
            return back(dy, x, w, None, [stride] * 2, [half] * 2, [1, 1], False, [0, 0], c, mask)

        peers = {
            "forward": lambda: torch.nn.functional.conv2d(x, w, stride=stride, padding=half, groups=c),
            "dx": lambda: peer([True, False, False])[0],
            "dweight": lambda: peer([False, True, False])[1],
        }
        for pass_, run in peers.items():
            report("depthwise", "", shape, 1, pass_, "pytorch", lambda run=run: time_of(run), flops, nbytes)
        for pass_, constants in variants(kernel, stride).items():

            def own(pass_=pass_, constants=constants):
                launch = launcher(compiled(f"sm_{major}{minor}", **constants), "dweight" if pass_ == "dweight" else "forward")
                vectors = c // constants["V"]
                if pass_ == "dweight":
                    result = torch.zeros(kernel * kernel, c, device="cuda")
                    grid = ((vectors + 31) // 32, max(1, min(batch * out // 8, 1056 * 32 // vectors)))
                    run = lambda: launch(grid, (32, 8), x, dy, result, batch, side, side, vectors, out, out)  # noqa: E731
                    run()
                    found = result.t().reshape(c, 1, kernel, kernel)
                else:
                    given = x if pass_ == "forward" else dy
                    result = torch.empty_like(dy if pass_ == "forward" else x)
                    tiles = (out + constants["T"] - 1) // constants["T"]
                    grid = ((batch * out * tiles * vectors + 255) // 256, 1)
                    run = lambda: launch(grid, (256, 1), given, taps, result, batch, side, side, vectors, out, out)  # noqa: E731
                    run()
                    found = result
                expected = peers[pass_]().float()
                off = (found.float() - expected).abs().max() / expected.abs().max()
                if not off < 0.02:
                    raise RuntimeError(f"differs from PyTorch by {off:.1e}")
                return time_of(run)

            report("depthwise", "", shape, 1, pass_, "prototype", own, flops, nbytes)


def properties(out):
    """Through cuDNN's backend descriptors: 38 is CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, 2700 and 2702 its device and its JSON."""
    import torch

    torch.zeros(1, device="cuda")
    cudnn, descriptor = library("libcudnn"), ctypes.c_void_p()
    device, count = ctypes.c_int32(0), ctypes.c_int64()
    buffer = ctypes.create_string_buffer(1 << 20)
    int32, char = 23, 24
    calls = [
        lambda: cudnn.cudnnBackendCreateDescriptor(38, ctypes.byref(descriptor)),
        lambda: cudnn.cudnnBackendSetAttribute(descriptor, 2700, int32, ctypes.c_int64(1), ctypes.byref(device)),
        lambda: cudnn.cudnnBackendFinalize(descriptor),
        lambda: cudnn.cudnnBackendGetAttribute(
            descriptor, 2702, char, ctypes.c_int64(len(buffer)), ctypes.byref(count), buffer
        ),
    ]

    def measure():
        for index, call in enumerate(calls):
            code = call()
            if code:
                raise RuntimeError(f"cuDNN: error {code} in call {index}")
        with open(os.path.join(out, "device.json"), "wb") as file:
            file.write(buffer.raw[: count.value].rstrip(b"\0"))
        return 0.001

    name = torch.cuda.get_device_name().replace(",", "")
    report("properties", "", name, 1, "", f"cudnn {torch.backends.cudnn.version()}", measure)


def check(batch):
    """Without a GPU: compiles the prototype and lists what would be measured."""
    for side, c, kernel, stride in DEPTHWISE:
        for pass_, constants in variants(kernel, stride).items():
            measure = lambda constants=constants: len(compiled("sm_90a", **constants)) / 1024  # noqa: E731
            report("check", "", f"{side}x{side} {c} {kernel}x{kernel}/{stride}", 1, pass_, "KiB of CUBIN", measure)
    for model, shapes in POINTWISE.items():
        rows = sum(count for *_, count in shapes)
        report("check", model, "", rows, "", f"{len(shapes)} kinds of 1x1 at batch {batch}", lambda: 1.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question", choices=["products", "statistics", "depthwise", "properties"])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--out", default=".")
    parser.add_argument("--check", action="store_true", help="needs no GPU")
    args = parser.parse_args()
    ROWS.writerow(HEAD)
    if args.check:
        check(args.batch)
    elif args.question == "properties":
        properties(args.out)
    else:
        globals()[args.question](args.batch)


if __name__ == "__main__":
    main()
