# Training on an NVIDIA GPU: learning and simulators without ROS. The context is the root of the repository:
#   docker compose -f docker/compose.yaml build train
#   docker compose -f docker/compose.yaml run --rm train          walk, into runs/walk
# Isaac Lab goes into an environment of its own, /opt/isaac, because it pins other versions of torch and Warp:
#   docker compose -f docker/compose.yaml build --build-arg ISAAC=ovphysx train     Isaac Lab with Newton and ovphysx
#   docker compose -f docker/compose.yaml build --build-arg ISAAC=isaacsim train    with Isaac Sim, 20 GB and more
# By choosing either you accept NVIDIA's licences; where Isaac Sim's wheels are not on pip's index, name NVIDIA's with
# --build-arg PIP_EXTRA_INDEX_URL=...
FROM nvidia/cuda:13.0.1-base-ubuntu24.04

SHELL ["/bin/bash", "-eo", "pipefail", "-c"]

# The wheels of torch and Warp bring CUDA's libraries, the host its driver. EGL and OpenGL are for rendering without a
# display (MUJOCO_GL=egl), libxt6 and the ones beside it are what Isaac Sim's Kit opens at start.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        build-essential ca-certificates git libegl1 libgl1 libglu1-mesa libxt6 python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/venv/bin:$PATH \
    NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility \
    MUJOCO_GL=egl
COPY requirements/ /requirements/
RUN python3 -m venv /opt/venv \
    && pip install --no-cache-dir -r /requirements/base.txt -r /requirements/gpu.txt -c /requirements/constraints.txt

ARG ISAAC=""
ARG ISAACLAB_VERSION=3.0.0
ARG PIP_EXTRA_INDEX_URL=""
RUN if [ -n "$ISAAC" ]; then \
      python3 -m venv /opt/isaac \
      && /opt/isaac/bin/pip install --no-cache-dir "isaaclab[$ISAAC]==$ISAACLAB_VERSION"; \
    fi

WORKDIR /workspace
COPY . .
ENV HUMANOID_RL_SHARE=/workspace \
    HUMANOID_RL_RUNS=/workspace/runs \
    PYTHONPATH=/workspace/src/humanoid_rl:/workspace/src/humanoid_rl_core:/workspace/src/humanoid_rl_sim
CMD ["python", "-m", "humanoid_rl", "train", "walk"]
