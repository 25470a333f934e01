#!/bin/bash
# Two network namespaces with a cable between them: the robot in one, a launch in the other. Wants the rights of
#   unshare --user --map-root-user --net --pid --fork --mount-proc two_machines.sh FAKE_G1_LOG COMMAND...
# which every user has where the kernel permits user namespaces. The robot's log is FAKE_G1_LOG.
set -eu
log=$1; shift
ip link set lo up
unshare --net sleep 600 & robot=$!
sleep 0.3
ip link add cable0 type veth peer name eth0 netns "$robot"
ip address add 192.168.123.222/24 dev cable0; ip link set cable0 up
nsenter --net="/proc/$robot/ns/net" bash -c 'ip link set lo up; ip address add 192.168.123.161/24 dev eth0; ip link set eth0 up'
# The robot speaks on all its interfaces, by multicast, as a program does that nobody has configured.
env -u ROS_AUTOMATIC_DISCOVERY_RANGE -u ROS_STATIC_PEERS ROS_DOMAIN_ID=0 \
  nsenter --net="/proc/$robot/ns/net" python "$(dirname "$0")/fake_g1.py" < <(sleep 600) > "$log" 2>&1 &
sleep 3
exec "$@"
