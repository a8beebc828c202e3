# The toolkit with the locked packages.
#   docker build -t talkingface .                              # CPU
#   docker build -t talkingface --build-arg DEVICE=cuda .      # NVIDIA GPU
#   docker run --rm -v "$PWD/runs:/data" talkingface           # the first command
#   docker run --rm --gpus all -v "$PWD/runs:/data" talkingface --model=... --dataset=...
FROM python:3.11-slim

# cpu: PyTorch's CPU wheels, about 5 GB smaller. cuda: the wheels of the lock, with NVIDIA's libraries.
ARG DEVICE=cpu

# What OpenCV and the MediaPipe library load.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 libegl1 libgles2 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/talkingface
COPY requirements.txt .
RUN if [ "$DEVICE" = cpu ]; then \
        grep -E '^(torch|torchvision|torchaudio)==' requirements.txt > torch.txt \
        && pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu -r torch.txt \
        && grep -vE '^(torch|torchvision|torchaudio|triton|nvidia-|cuda-)' requirements.txt > locked.txt; \
    else \
        cp requirements.txt locked.txt; \
    fi \
    && pip install --no-cache-dir -r locked.txt

COPY . .
RUN pip install --no-cache-dir --no-deps .

# Data, runs and results.
ENV TALKINGFACE_ROOT=/data
WORKDIR /data
ENTRYPOINT ["talkingface"]
CMD ["--model=HyperLipsBase", "--dataset=Synthetic", "--preset=tiny"]
