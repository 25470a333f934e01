# Source me: the environment in which this workspace builds and runs, with or without an installed ROS 2.
_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
_venv=${VENV:-$_root/.venv${SUFFIX:-}}
_ros=${ROS_PREFIX:-/opt/ros/jazzy}
export VIRTUAL_ENV=$_venv PATH=$_venv/bin:$PATH
unset PYTHONHOME
if [ -f "$_ros/setup.bash" ]; then
  set +u; source "$_ros/setup.bash"; set -u
  # `ros2` is run by the system's Python, which the environment's packages have to be shown to.
  for _packages in "$_venv"/lib/python3*/site-packages; do PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}$_packages; done
  export PYTHONPATH
else
  unset PYTHONPATH
  export AMENT_PREFIX_PATH=$_venv CMAKE_PREFIX_PATH=$_venv ROS_DISTRO=jazzy ROS_VERSION=2 ROS_PYTHON_VERSION=3
  export LD_LIBRARY_PATH=$_venv/lib:$(printf '%s:' "$_venv"/lib/python3*/site-packages/ros_*.libs)${LD_LIBRARY_PATH:-}
  export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
fi
if [ -f "$_root/install${SUFFIX:-}/local_setup.bash" ]; then
  set +u; source "$_root/install${SUFFIX:-}/local_setup.bash"; set -u
fi
# What runs a command in the environment of Isaac Lab, where `make isaac` has made it.
if [ -f "$_root/.venv-isaac/.mujoco" ]; then export HUMANOID_RL_ISAAC=$_root/tools/isaac; fi
# Whether ROS 2 itself brings tf2_msgs (the wheels do not).
ros2_has_tf2() { [ -d "$_ros/share/tf2_msgs" ]; }
