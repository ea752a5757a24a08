# What a build is told. `control ami bake` renders these from a definition of amis/; every value can be given by hand, too:
#   packer build -var-file=variables.pkrvars.json packer/

variable "region" {
  type        = string
  description = "The region that the image is made in."
}

variable "source_ami" {
  type        = string
  description = "The EKS AL2023 image to build from: its id, which `control ami resolve` finds by the public parameter."

  validation {
    condition     = can(regex("^ami-[0-9a-f]{8,17}$", var.source_ami))
    error_message = "The source image is given by its id, as in ami-0123456789abcdef0: `control ami resolve` finds it."
  }
}

variable "image_name" {
  type        = string
  description = "The name of the image, unique in the account and region."

  validation {
    condition     = can(regex("^[A-Za-z0-9()\\[\\] ./'@_-]{3,128}$", var.image_name))
    error_message = "EC2 takes 3 to 128 letters, digits and ()[] ./-'@_ as the name of an image."
  }
}

variable "image_description" {
  type        = string
  default     = ""
  description = "What EC2 shows beside the name; made from the versions where it is empty."
}

variable "architecture" {
  type        = string
  description = "The processor of the source image and of the agent: x86_64 or arm64."

  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "The architecture is x86_64 or arm64."
  }
}

variable "kubernetes_version" {
  type        = string
  description = "The minor version of Kubernetes that the source image was made for, as in 1.34; the build fails where its kubelet is of another."

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "The Kubernetes version is a minor version, as in 1.34."
  }
}

variable "driver_branch" {
  type        = string
  description = "The branch of NVIDIA's driver in the source image, as in 580; none for an image without it."

  validation {
    condition     = can(regex("^([0-9]{3}|none)$", var.driver_branch))
    error_message = "The driver branch is a number of three digits, as in 580, or none."
  }
}

variable "instance_type" {
  type        = string
  description = "What to build on: of the image's architecture and without an accelerator."

  # The image holds several drivers, and at the first boot a resolver keeps the one that fits the GPU it finds: an image
  # that was made on a GPU instance has one GPU family frozen into it.
  validation {
    condition     = !can(regex("^(g[0-9]|gr[0-9]|p[0-9]|trn[0-9]|inf[0-9]|dl[0-9]|vt[0-9]|f[0-9])", var.instance_type))
    error_message = "An image is never built on an instance with an accelerator: the driver for its GPU alone would stay in the image. Take m7i.large, or m7g.large for arm64."
  }

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", var.instance_type))
    error_message = "An instance type looks like m7i.large."
  }
}

variable "agent_tarball" {
  type        = string
  description = "The agent's tarball, as `make dist` leaves it."
}

variable "agent_version" {
  type        = string
  description = "The version that the agent in the tarball must say it is."
}

variable "agent_sha256" {
  type        = string
  description = "The SHA-256 of the tarball; checked on the machine, before anything is unpacked."

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.agent_sha256))
    error_message = "A SHA-256 is 64 hexadecimal digits."
  }
}

variable "volume_size_gib" {
  type        = number
  default     = 20
  description = "The root volume; at least as large as the source image's."
}

variable "kms_key_id" {
  type        = string
  default     = ""
  description = "The key that the volume, and so the image, is encrypted with; the account's key for EBS where it is empty."
}

variable "subnet_id" {
  type        = string
  default     = ""
  description = "Where the build instance runs; a subnet of the default VPC where it is empty."
}

variable "ssh_interface" {
  type        = string
  default     = "private_ip"
  description = "How the build instance is reached: private_ip, public_ip or session_manager."

  validation {
    condition     = contains(["private_ip", "public_ip", "session_manager"], var.ssh_interface)
    error_message = "The build instance is reached by private_ip, public_ip or session_manager."
  }
}

variable "ssh_source_cidrs" {
  type        = list(string)
  default     = ["127.0.0.1/32"]
  description = "Who may reach the build instance's ssh: your own address. The default is nobody, which does for session_manager: that needs no rule."

  validation {
    condition     = length(var.ssh_source_cidrs) > 0
    error_message = "Without a source, Packer would open the build instance to the world."
  }

  validation {
    condition     = length([for cidr in var.ssh_source_cidrs : cidr if can(regex("/0+$", cidr))]) == 0
    error_message = "The build instance is never open to the world: give the address that you come from, as in 203.0.113.7/32."
  }
}

variable "iam_instance_profile" {
  type        = string
  default     = ""
  description = "The instance profile of the build instance; session_manager needs one with AmazonSSMManagedInstanceCore."
}

variable "endpoint_ec2" {
  type        = string
  default     = ""
  description = "Another endpoint of EC2 than the region's own, such as a VPC endpoint's."
}

variable "polling_seconds" {
  type        = number
  default     = 15
  description = "How often EC2 is asked whether an instance or an image is ready."
}

variable "tags" {
  type        = map(string)
  default     = {}
  description = "Tags of the image, its snapshot and everything that the build makes for a while."
}

variable "manifest_path" {
  type        = string
  default     = "target/image/manifest.json"
  description = "Where Packer writes what it built. The image's own manifest comes beside it, as NAME-image.json."
}
