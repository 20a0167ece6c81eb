#!/bin/sh
# Inside a build: makes what an image is put together from, at the versions of constraints.txt.
#
#   install.sh tools                                  the image's user, and pip beside the image's environment
#   install.sh packages ROOT REQUIREMENTS [option…]   what a file names, without what no run of ours reads
#   install.sh source ROOT                            this package, byte by byte as the checkout holds it
#
# The environment is /opt/telecine. Under a ROOT other than / files become a layer of their own, while / still says what
# is installed already. The image itself runs nothing while it is built, so that no mount of a build leaves a trace.
set -eu
environment=/opt/telecine
export PIP_CACHE_DIR=/var/cache/pip
step=$1 root=${2:-/}

make_user() {
  mkdir -p user/etc/profile.d user/home/telecine
  { cat /etc/passwd; echo telecine:x:10001:10001::/home/telecine:/usr/sbin/nologin; } > user/etc/passwd
  { cat /etc/group; echo telecine:x:10001:; } > user/etc/group
  # A login shell, as KubeRay may start one, forgets the PATH of the image.
  echo "PATH=$environment/bin:\$PATH" > user/etc/profile.d/telecine.sh
}

install() {
  tools/bin/pip --python $environment/bin/python install --no-warn-script-location --root "$root" "$@"
}

leave_out() {
  cd "${root%/}$environment/lib/python3.11/site-packages"
  # The packages' own tests, but not what their users import, such as numpy.testing.
  for package in matplotlib numpy pandas psutil pyarrow scipy sklearn sympy; do
    [ ! -d "$package" ] || find "$package" -type d -name tests -prune -exec rm -rf {} +
  done
  rm -rf torch/test torch/bin/*[Tt]est* torch/bin/upgrader_models torch/bin/*.ptl torch/lib/lib*_test.so
  # What only a compiler reads, and there is none; Ray's Java; Arrow's RPC.
  rm -rf numpy/_core/include pyarrow/include pyarrow/src torch/include torch/share torch/bin/protoc*
  rm -rf ray/jars ray/cpp pyarrow/_flight.* pyarrow/libarrow_flight.* pyarrow/libarrow_python_flight.*
  find . \( -name '*.a' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' \) -delete
}

case $step in
tools)
  python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "BASE_IMAGE has no Python 3.11 as python3")'
  make_user
  python3 -m venv --without-pip $environment
  python3 -m venv tools
  tools/bin/pip install --constraint constraints.txt editables hatchling
  ;;
packages)
  requirements=$3
  shift 3
  install --constraint constraints.txt --requirement "$requirements" "$@"
  leave_out
  ;;
source)
  tools/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir wheel .
  install --no-deps --no-index wheel/*.whl
  ;;
esac
