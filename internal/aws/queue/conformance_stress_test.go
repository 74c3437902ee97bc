//go:build stress

package queue_test

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
)

func TestConformanceFull(t *testing.T) { tests.TestPubSub(t, features(), construct, nil) }

func TestConformanceStress(t *testing.T) {
	tests.TestPubSubStressTest(t, features(), construct, nil)
}
