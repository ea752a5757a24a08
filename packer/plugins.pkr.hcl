packer {
  # 1.11: plugins are found by the checksum beside them, and none are built in.
  required_version = ">= 1.11.0"

  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.3.4"
    }
  }
}
