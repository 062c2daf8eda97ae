package san

import (
	"strconv"
	"strings"
)

// Sizes.
const (
	// ExtentSizeBytes is the unit of allocation on a medium.
	ExtentSizeBytes = 4 << 20
	// DefaultBlockSizeBytes is a volume's block size unless asked otherwise.
	DefaultBlockSizeBytes = 512
	// MaxVolumeSizeBytes is 1 PiB: far above any medium, far below any overflow.
	MaxVolumeSizeBytes = 1 << 50
)

// CheckVolumeSize reports whether a volume may have sizeBytes with blocks of
// blockSizeBytes (512 or 4096).
func CheckVolumeSize(sizeBytes int64, blockSizeBytes uint32) error {
	switch {
	case blockSizeBytes != 512 && blockSizeBytes != 4096:
		return Errorf(KindInvalid, "block size %d is not supported; use 512 or 4096", blockSizeBytes)
	case sizeBytes <= 0:
		return Errorf(KindInvalid, "volume size %d is not positive; give one like 80MiB", sizeBytes)
	case sizeBytes > MaxVolumeSizeBytes:
		return Errorf(KindInvalid, "volume size %d is over the limit of %d bytes (1 PiB); ask for less", sizeBytes, int64(MaxVolumeSizeBytes))
	case sizeBytes%int64(blockSizeBytes) != 0:
		return Errorf(KindInvalid, "volume size %d is no multiple of the block size %d; the next smaller size that is: %d", sizeBytes, blockSizeBytes, sizeBytes-sizeBytes%int64(blockSizeBytes))
	}
	return nil
}

// ExtentsFor returns how many extents hold sizeBytes.
func ExtentsFor(sizeBytes int64) uint32 {
	return uint32((sizeBytes + ExtentSizeBytes - 1) / ExtentSizeBytes)
}

var sizeUnits = []struct {
	suffix string
	factor int64
}{
	{"KIB", 1 << 10}, {"MIB", 1 << 20}, {"GIB", 1 << 30}, {"TIB", 1 << 40}, {"PIB", 1 << 50},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"PB", 1e15},
	{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40}, {"P", 1 << 50}, {"B", 1},
}

// ParseSize reads a size such as 80MiB, 2G, 1500000 or 80MB. Suffixes KiB…PiB and K…P are powers of
// 1024, KB…PB powers of 1000; none or B means bytes. Whole numbers only.
func ParseSize(s string) (int64, error) {
	num, factor := strings.ToUpper(strings.TrimSpace(s)), int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(num, u.suffix); ok {
			num, factor = strings.TrimSpace(rest), u.factor
			break
		}
	}
	n, err := strconv.ParseInt(num, 10, 64)
	if err != nil {
		return 0, Errorf(KindInvalid, "size %q is not a whole number with a unit; write it like 80MiB or 2GiB", s)
	}
	if most := (1<<63 - 1) / factor; n > most || n < -most {
		return 0, Errorf(KindInvalid, "size %q is out of range", s)
	}
	return n * factor, nil
}

// FormatSize renders bytes in the largest binary unit of which there is at least one, with one decimal unless
// that is 0.
func FormatSize(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i, f := 0, float64(n)
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") + units[i]
}
