package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
)

// procField returns the number after "name:" in a file of /proc.
func procField(file, name string) (int64, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), name+":"); ok {
			var n int64
			if _, err := fmt.Sscan(rest, &n); err != nil {
				return 0, fmt.Errorf("%s in %s: %w", name, file, err)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("no %s in %s", name, file)
}

// traffic is how many bytes a process has read and written by system calls, from files or elsewhere.
// What it has mapped into memory is not counted.
type traffic struct{ read, written int64 }

// trafficOf returns the traffic of a process, which may be "self", since its start.
func trafficOf(pid string) (traffic, error) {
	read, err := procField("/proc/"+pid+"/io", "rchar")
	if err != nil {
		return traffic{}, err
	}
	written, err := procField("/proc/"+pid+"/io", "wchar")
	return traffic{read, written}, err
}

// peakMemory returns the most memory in bytes that the process has had at once since resetPeak, or
// since its start.
func peakMemory(pid int) (int64, error) {
	kib, err := procField(fmt.Sprintf("/proc/%d/status", pid), "VmHWM")
	return kib << 10, err
}

// resetPeak makes peakMemory forget the past.
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}
