#!/usr/bin/env bash
# Builds the image for linux/amd64 and pushes it to ECR, as :latest and under the
# commit's name.
#
#   AWS_ACCOUNT_ID=… AWS_REGION=… [ECR_REPOSITORY=…] ./build-and-push.sh [--dry-run]
#
#   AWS_ACCOUNT_ID   account of the registry; required
#   AWS_REGION       its region; required
#   ECR_REPOSITORY   default webordinary/claude-code
#   DOCKER           default docker; podman does as well
#
# With --dry-run it says what it would do, and does nothing.
set -euo pipefail
cd "$(dirname "$0")"

dry=false
case "$#:${1:-}" in
0:) ;;
1:--dry-run) dry=true ;;
*)
	echo "usage: $0 [--dry-run]" >&2
	exit 2
	;;
esac
for name in AWS_ACCOUNT_ID AWS_REGION; do
	if [ -z "${!name:-}" ]; then
		echo "$name is missing: it says which registry to push to" >&2
		exit 2
	fi
done
if ! [[ $AWS_ACCOUNT_ID =~ ^[0-9]{12}$ ]]; then
	echo "AWS_ACCOUNT_ID is \"$AWS_ACCOUNT_ID\"; an account has 12 digits" >&2
	exit 2
fi

docker=${DOCKER:-docker}
registry=$AWS_ACCOUNT_ID.dkr.ecr.$AWS_REGION.amazonaws.com
image=$registry/${ECR_REPOSITORY:-webordinary/claude-code}
revision=$(git rev-parse HEAD)
version=$(git describe --always --dirty)

do_() {
	printf '+ %s\n' "$*"
	$dry || "$@"
}
login() { aws ecr get-login-password --region "$AWS_REGION" | "$docker" login --username AWS --password-stdin "$registry"; }

do_ "$docker" build --platform linux/amd64 --build-arg "REVISION=$revision" --build-arg "VERSION=$version" \
	--tag "$image:$version" --tag "$image:latest" .
printf '+ aws ecr get-login-password --region %s | %s login --username AWS --password-stdin %s\n' "$AWS_REGION" "$docker" "$registry"
$dry || login
do_ "$docker" push "$image:$version"
do_ "$docker" push "$image:latest"
