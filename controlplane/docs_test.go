package controlplane

import "testing"

func testDocs(t *testing.T, c *cluster) {}
