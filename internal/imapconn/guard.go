package imapconn

import (
	"fmt"
	"strings"
)

// guard refuses commands that would remove what was not named (RFC 4315 section 2.1
// tells why EXPUNGE and CLOSE do) or set \Seen, whoever asks for them.
func guard(cmd string) error {
	words := strings.SplitN(strings.ToUpper(strings.TrimRight(cmd, "\r\n")), " ", 3)
	switch words[0] {
	case "EXPUNGE", "CLOSE":
		return fmt.Errorf("%s is never sent: it removes messages that were not named", words[0])
	case "FETCH", "UID":
		line := strings.ToUpper(cmd)
		if strings.Contains(line, "FETCH") && (strings.Contains(line, "BODY[") || strings.Contains(line, "BINARY[") ||
			strings.Contains(line, "RFC822 ") || strings.Contains(line, "RFC822)") || strings.Contains(line, "RFC822.TEXT")) {
			return fmt.Errorf("%s without PEEK is never sent: it marks messages as seen", words[0])
		}
	}
	return nil
}
