package hostile

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// watch returns the most memory a process had resident, in KiB, when it is gone.
// (What wait tells of a child counts its parent's memory, too.)
func watch(pid int) int {
	most := 0
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, rest, ok := strings.Cut(string(b), "VmHWM:")
		if err != nil || !ok { // a process that ended has no memory
			return most
		}
		if kib, err := strconv.Atoi(strings.Fields(rest)[0]); err == nil && !strings.HasPrefix(string(b), "Name:\thostile") {
			most = max(most, kib)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
