package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRealInput sends a file system made of the Go source tree through a volume with stock
// tools, and lets them look at the unit.
func TestRealInput(t *testing.T) {
	t.Parallel()
	tool(t, "mke2fs", "e2fsck", "qemu-img", "qemu-io", "iscsi-ls", "iscsi-inq", "iscsi-readcapacity16", "iscsi-perf")
	c := start(t, "--stations", "1", "--units", "1", "--hosts", "0")
	c.ok("host", "add", "qemu", "--initiator", qemuIQN)
	c.ok("host", "add", "tools", "--initiator", otherIQN)
	sizeMiB := 320
	if testing.Short() {
		sizeMiB = 48
	}
	v := c.give("image", fmt.Sprintf("%dMiB", sizeMiB), "qemu")
	small := c.give("small", "64MiB", "tools")
	url := c.url("image", "qemu")

	t.Run("file system there and back", func(t *testing.T) { throughVolume(t, url, sizeMiB) })
	t.Run("qemu-io", func(t *testing.T) {
		do(t, "qemu-io", "-f", "raw", "-t", "none", "-c", "write -P 0x5a 3584 66048", "-c", "flush", "-c", "read -P 0x5a 3584 66048",
			"-c", "write -z 4096 8192", "-c", "read -P 0 4096 8192", "-c", "discard 1M 1M", "-c", "read -P 0x5a 12288 512",
			"-c", "write -P 0x77 -f 0 512", "-c", "read -P 0x77 0 512", url)
		last := v.SizeBytes - 512
		do(t, "qemu-io", "-f", "raw", "-c", fmt.Sprintf("write -P 1 %d 512", last), "-c", fmt.Sprintf("read -P 1 %d 512", last), url)
		if r := try(t, "qemu-io", "-f", "raw", "-c", fmt.Sprintf("write -P 1 %d 1024", last), url); !strings.Contains(r.Said(), "rror") {
			t.Errorf("a write beyond the end: %s", r.Said())
		}
		if got := do(t, "qemu-img", "info", "--output=json", url); !strings.Contains(got, fmt.Sprintf(`"virtual-size": %d`, v.SizeBytes)) {
			t.Errorf("qemu-img info: %s, want %d bytes", got, v.SizeBytes)
		}
	})
	t.Run("libiscsi", func(t *testing.T) {
		p := small.Assignments[0].Paths[0]
		portal := "iscsi://" + p.Portal
		if got := do(t, "iscsi-ls", "-i", otherIQN, portal); len(linesWith(got, "Target:")) != 1 || !strings.Contains(got, p.TargetIQN) {
			t.Errorf("iscsi-ls shows %q, want %s alone", got, p.TargetIQN)
		}
		if got := do(t, "iscsi-ls", "-i", "iqn.2026-11.example:nobody", portal); strings.Contains(got, "iqn.") {
			t.Errorf("an unknown initiator is shown %q", got)
		}
		url := c.url("small", "tools")
		if got := do(t, "iscsi-inq", "-i", otherIQN, url); !strings.Contains(got, "SANDBAR") || !strings.Contains(got, "Peripheral Qualifier:CONNECTED") {
			t.Errorf("iscsi-inq: %s", got)
		}
		for page, want := range map[string]string{
			"0": "SUPPORTED_VPD_PAGES", "128": "Unit Serial Number:[", "131": "DEVICE_IDENTIFICATION", "176": "optimal unmap granularity", "178": "lbprz:1",
		} {
			if got := do(t, "iscsi-inq", "-i", otherIQN, "-e", "1", "-c", page, url); !strings.Contains(got, want) {
				t.Errorf("iscsi-inq page %s: no %s in %s", page, want, got)
			}
		}
		got := do(t, "iscsi-readcapacity16", "-i", otherIQN, url)
		for _, want := range []string{fmt.Sprintf("LOGICAL BLOCK ADDRESS:%d\n", small.SizeBytes/512-1), "BLOCK LENGTH IN BYTES:512\n", fmt.Sprintf("Total size:%d", small.SizeBytes)} {
			if !strings.Contains(got, want) {
				t.Errorf("iscsi-readcapacity16: no %q in %s", want, got)
			}
		}
		// What the unit told and what the three parties agreed on is the same.
		if want := uint64(small.SizeBytes)/512 - 1; p.StartLBA != 0 || p.EndLBA != want {
			t.Errorf("the path has LBA %d to %d, want 0 to %d", p.StartLBA, p.EndLBA, want)
		}
		if got := do(t, "iscsi-perf", "-i", otherIQN, "-t", "2", "-m", "32", "-b", "8", url); !strings.Contains(got, "iops") {
			t.Errorf("iscsi-perf: %s", got)
		}
	})
}

// throughVolume writes an image onto the volume and reads it back.
func throughVolume(t *testing.T, url string, sizeMiB int) {
	t.Helper()
	dir := t.TempDir()
	image, back := filepath.Join(dir, "image"), filepath.Join(dir, "back")
	tree := filepath.Join(strings.TrimSpace(do(t, "go", "env", "GOROOT")), "src")
	if testing.Short() {
		tree = filepath.Join(tree, "net")
	}
	do(t, "mke2fs", "-q", "-t", "ext4", "-d", tree, image, fmt.Sprintf("%dM", sizeMiB))
	if info, err := os.Stat(image); err != nil || info.Size() != int64(sizeMiB)<<20 {
		t.Fatalf("the image: %v, %v", info, err)
	}
	do(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, url)
	if got := do(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, url); !strings.Contains(got, "identical") {
		t.Errorf("qemu-img compare: %s", got)
	}
	do(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", url, back)
	sameFiles(t, image, back)
	do(t, "e2fsck", "-f", "-n", back)
}
