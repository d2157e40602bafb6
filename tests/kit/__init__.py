"""What tests share, by module.

ComfyUI
    host                   a running ComfyUI process: queue graphs, read its events, fetch pictures
    pack                   the pack's nodes in the test's own process
    node_calls             calls of nodes with defaults for their widgets
    host_clip              ComfyUI's tokenizers with a small embedding table
    host_families          small random models of ComfyUI's own classes, to train
    host_other_families    the same of further families
    one_block_anima        a file of Anima with one block of the published width
    quantized_files        a small Krea 2 file in each of ComfyUI's formats of quantised weights
    core_lora              a LoRA as ComfyUI's own trainer writes it
    graphs                 graphs in the queue's format, with the nodes' defaults filled in
    small_workflows        the shipped workflows with small pictures, few steps, and the files that they name
    main_workflow          the workflow for fine-tuning, made small in the editor
    named_files            empty files under every name that the shipped workflows give
    canary                 API keys in a host's environment, and the search for traces of them
    host_forward           outputs of ComfyUI's own UNet, VAE and text encoders, computed in a child process
    host_lora              outputs of ComfyUI's models with LoRA files applied, computed in a child process
    checkpoint_sized       a patch for ComfyUI: text encoders and autoencoders as large as a checkpoint has them
    absent_package         a patch for ComfyUI: a package that is installed is not there
    frozen_heap            a patch for ComfyUI: modules' objects are not searched for garbage

Browser
    editor                 ComfyUI's editor in Chromium
    languages              the languages of the pack: their letters, and how wide a text is
    panel                  the training panel: its curve, its numbers, its accessibility

Models
    checkpoints            random checkpoints of every family, in several sizes
    sd3_checkpoint         a small random SD 3 that ComfyUI detects
    ldm_shapes             tensor names and shapes of the original architectures
    diffusers_forward      outputs of diffusers' UNet and VAE, here or in a child process
    loras                  random LoRAs, and UNets of published shapes without weights
    stack_encoder          the text encoders of a model as an encoder of weighted prompts
    clip_models            random CLIP models for scores
    seeing_models          depth estimation, ControlNet, Real-ESRGAN and x4 upscaler
    face_models            face restoration models
    face_detector          a landmark model that finds the faces of `faces`
    demo_pipeline          the demo model in a diffusers pipeline

Pictures
    pictures               picture files, different for each seed
    icc                    colour profiles made by hand
    shapes                 captioned pictures of coloured shapes, to train on
    faces                  drawn faces with known landmarks
    found_prompts          the metadata that other programs write into pictures
    demo_pixels            what a picture of the demo model shows
    demo_pencil            what a pencil sketch of the demo model shows

Training
    encoding               a training set encoded, with counts of what that takes
    training               a tiny UNet and training sets in memory
    training_loop          a training loop on tiny parts, and ways to end it
    dying_shell            the shell, of whose processes one is killed
    joint_loop             training loops on tiny parts in several processes
    training_run           a short training request, and ways to interrupt or watch its run

Surroundings
    device                 the device that tests compute on
    progress_rules         what holds for the progress of all long work, watched in every test
    pretend_cuda           a pretend CUDA device for a CPU-only PyTorch
    launches               counts of the kernels that a card would be given
    real_card              this machine's graphics card, as `make card` tests on it
    recorded_graphs        what stands for CUDA graphs
    shell                  the shell's verbs in this process
    fake_llm               a chat-completions endpoint that answers, or fails, as told
    fake_vision            the same for models that see: it tells the number painted into a picture
    offline                no network
    leash                  child processes that end with their parent
    drawn                  every kind of picture that the library draws, and the stored ones
    damage                 random damage for files of every kind
    damaged_files          valid files to damage, and a process that reads them within limits of time and memory
    damage_readers         that process
    memory                 peak memory of a test run, and its limits
"""
